import os
import socket
import stat
import subprocess
import sys
import time

import pytest
from msgspec.structs import replace

from probe import registry
from probe.processes import is_running, start_time
from probe.registry import RegistryError, RunEntry, find, list_runs, new_entry, register


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("DEFAULTPP_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("DEFAULTPP_RUNTIME_DIR", str(tmp_path / "runtime"))


def gone() -> RunEntry:
    """An entry of a process that existed and ended."""
    code = "import os; from probe.processes import start_time; print(start_time(os.getpid()))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    started = process.communicate()[0].decode().strip()
    assert started
    return replace(new_entry("gone"), pid=process.pid, started=started)


def test_run_ids_are_unique_and_sort_by_time():
    ids = [registry.new_run_id(now) for now in (0.0, 1.5, 1.501, 59.0, 1e9, 2e9)]
    assert ids == sorted(ids)
    assert len({registry.new_run_id(5.0) for _ in range(100)}) == 100
    assert registry.new_run_id(1.5).startswith("19700101-000001-500-")


def test_a_run_is_listed_until_it_is_unregistered():
    entry = replace(new_entry("bert", rank=1, world_size=2), publish="ipc:///x", key="k" * 80)
    path = register(entry)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list_runs() == [entry]
    assert entry.here
    assert entry.alive
    registry.unregister(entry)
    registry.unregister(entry)
    assert list_runs() == []
    assert os.listdir(path.parent) == []


def test_newest_runs_come_first_and_ranks_in_order():
    old, new = registry.new_run_id(1000.0), registry.new_run_id(2000.0)
    for run, rank in ((old, 0), (new, 1), (new, 0)):
        register(new_entry("bert", run=run, rank=rank, world_size=2))
    assert [(entry.run, entry.rank) for entry in list_runs()] == [(new, 0), (new, 1), (old, 0)]


def test_a_dead_run_is_swept_with_its_sockets_and_nothing_else(tmp_path):
    dead = []
    for name in ("a.pub", "a.ctl"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / name))
        listener.close()
        dead.append(f"ipc://{tmp_path / name}")
    precious = tmp_path / "precious"
    precious.write_text("data")
    path = register(replace(gone(), publish=dead[0], control=dead[1]))
    other = register(replace(gone(), publish=f"ipc://{precious}", control="tcp://127.0.0.1:1"))
    assert list_runs() == []
    assert not path.exists()
    assert not other.exists()
    assert not (tmp_path / "a.pub").exists()
    assert not (tmp_path / "a.ctl").exists()
    assert precious.read_text() == "data"


def test_another_process_with_the_same_pid_does_not_count():
    register(replace(new_entry("imposter"), started="1"))
    assert list_runs() == []


def test_a_run_of_an_earlier_boot_is_swept():
    register(replace(new_entry("before"), boot_id="another boot"))
    assert list_runs() == []


def test_a_zombie_is_not_running():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = start_time(process.pid)
    assert is_running(process.pid, started)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_running(process.pid, started)
    process.communicate()
    assert not is_running(process.pid, started)


def test_runs_of_other_machines_and_containers_are_kept_until_they_fall_silent():
    far = replace(new_entry("far"), host="gpu-7", boot_id="its own", pid=1, started="1")
    boxed = replace(new_entry("boxed"), pid_namespace="pid:[1]", pid=1, started="1")
    path = register(far)
    register(boxed)
    assert {entry.name for entry in list_runs()} == {"far", "boxed"}
    assert not far.here
    assert not boxed.here
    old = time.time() - registry.ELSEWHERE_SECONDS - 10
    os.utime(path, (old, old))
    registry.refresh(far)
    assert {entry.name for entry in list_runs()} == {"far", "boxed"}
    os.utime(path, (old, old))
    assert {entry.name for entry in list_runs()} == {"boxed"}
    assert not path.exists()


def test_what_is_no_entry_is_ignored_and_left_alone():
    entry = new_entry("good")
    folder = register(entry).parent
    (folder / "garbage.json").write_bytes(os.urandom(100))
    (folder / "deep.json").write_text("[" * 50_000)
    (folder / "other.json").write_text('{"run": 3}')
    (folder / "huge.json").write_text('{"run": "' + "x" * 200_000 + '"}')
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "pipe.json")
    (folder / "dangling.json").symlink_to("nowhere")
    assert list_runs() == [entry]
    assert len(os.listdir(folder)) == 8


def test_an_entry_cannot_leave_its_directory(tmp_path):
    path = register(replace(new_entry("x"), run="../../evil/../name"))
    assert path.parent == tmp_path / "state" / "runs"
    assert not (tmp_path / "evil").exists()


def test_find_by_id_name_and_beginning():
    bert = new_entry("bert", run="20250101-000000-000-aaaaaa")
    gpt = new_entry("gpt2", run="20250102-000000-000-bbbbbb")
    second = new_entry("gpt2", run="20250103-000000-000-cccccc", rank=1)
    first = replace(second, rank=0)
    entries = [second, first, gpt, bert]
    assert find("bert", entries) is bert
    assert find(bert.run, entries) is bert
    assert find("20250102", entries) is gpt
    assert find(second.run, entries) is first
    with pytest.raises(RegistryError, match="bbbbbb") as ambiguous:
        find("gpt2", entries)
    assert second.run in str(ambiguous.value)
    with pytest.raises(RegistryError, match=r"no live run.*bert \(20250101"):
        find("llama", entries)
    with pytest.raises(RegistryError, match=r"probe\.attach"):
        find("llama", [])
    with pytest.raises(RegistryError, match="no live run"):
        find("", entries)
