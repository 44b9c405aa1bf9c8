import os
import stat

import pytest

from probe import directories
from probe.directories import (
    DirectoryError,
    private_dir,
    runs_dir,
    runtime_dir,
    state_dir,
    traces_dir,
)


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    for name in (
        "DEFAULTPP_STATE_DIR",
        "DEFAULTPP_RUNTIME_DIR",
        "XDG_STATE_HOME",
        "XDG_RUNTIME_DIR",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_places_follow_the_xdg_variables(monkeypatch, tmp_path):
    assert state_dir() == tmp_path / ".local/state/defaultpp"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    assert traces_dir() == tmp_path / "s/defaultpp/traces"
    assert runs_dir() == tmp_path / "s/defaultpp/runs"
    assert mode(runs_dir()) == mode(state_dir()) == 0o700
    (tmp_path / "r").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "r"))
    assert runtime_dir() == tmp_path / "r/defaultpp"
    assert mode(runtime_dir()) == 0o700
    monkeypatch.setenv("DEFAULTPP_STATE_DIR", str(tmp_path / "mine"))
    monkeypatch.setenv("DEFAULTPP_RUNTIME_DIR", str(tmp_path / "too"))
    assert state_dir() == tmp_path / "mine"
    assert runtime_dir() == tmp_path / "too"


def test_a_runtime_directory_left_behind_by_su_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    monkeypatch.setattr(directories, "fallback_runtime_dir", lambda: tmp_path / "fallback")
    assert runtime_dir() == tmp_path / "fallback"


def test_a_directory_open_to_others_is_refused(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(DirectoryError, match="chmod 700"):
        private_dir(tmp_path / "open", "SOME_VARIABLE")


def test_a_link_is_refused(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(DirectoryError, match=r"link.*SOME_VARIABLE"):
        private_dir(tmp_path / "link", "SOME_VARIABLE")


def test_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DirectoryError, match="not a directory"):
        private_dir(tmp_path / "file", "SOME_VARIABLE")
    with pytest.raises(DirectoryError, match="cannot be made"):
        private_dir(tmp_path / "file" / "below", "SOME_VARIABLE")


def test_someone_elses_directory_is_refused(tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(DirectoryError, match="another user"):
        private_dir(tmp_path / "theirs", "SOME_VARIABLE")


def test_without_a_writable_home_the_state_lies_beside_the_sockets(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setenv("DEFAULTPP_RUNTIME_DIR", str(tmp_path / "r"))
    assert state_dir() == tmp_path / "r" / "state"


def test_a_state_directory_others_may_write_is_refused(monkeypatch, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s").chmod(0o777)
    monkeypatch.setenv("DEFAULTPP_STATE_DIR", str(tmp_path / "s"))
    with pytest.raises(DirectoryError, match="chmod 700"):
        state_dir()


def test_a_linked_state_directory_is_fine(monkeypatch, tmp_path):
    (tmp_path / "disk").mkdir(mode=0o700)
    (tmp_path / "s").symlink_to(tmp_path / "disk")
    monkeypatch.setenv("DEFAULTPP_STATE_DIR", str(tmp_path / "s"))
    assert traces_dir().resolve() == tmp_path / "disk" / "traces"
