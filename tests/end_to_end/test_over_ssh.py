"""``attach ssh://`` through a real sshd on the loopback: own host key, own login key, own port."""

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from training_processes import drain, wait_for

from monitor.sources.source import SourceError
from monitor.sources.ssh import open_ssh
from probe.schema import Control, Frame, Header
from probe.trace import load

SSHD = shutil.which("sshd") or next(
    (path for path in ("/usr/sbin/sshd", "/usr/local/sbin/sshd") if Path(path).exists()), None
)
pytestmark = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None,
    reason="needs Debian's openssh-server and openssh-client",
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def sshd(places, monkeypatch):
    """A server for this user's key only; returns ``user@127.0.0.1:port``."""
    place = places / "ssh"
    place.mkdir(mode=0o700)
    for name in ("host", "login"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name], check=True
        )
    keys = place / "authorized_keys"
    shutil.copy(place / "login.pub", keys)
    keys.chmod(0o600)
    port = free_port()
    variables = ("DEFAULTPP_RUNTIME_DIR", "DEFAULTPP_STATE_DIR")
    config = place / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {place / 'host'}\n"
        f"AuthorizedKeysFile {keys}\nPidFile {place / 'pid'}\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
        # A machine whose login has the probe's variables, as a user's profile would set them.
        "SetEnv " + " ".join(f"{name}={os.environ[name]}" for name in variables) + "\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd's privilege separation wants it
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=subprocess.PIPE, text=True)
    client = ["ssh", "-F", "none", "-i", place / "login", "-o", "IdentitiesOnly=yes"]
    client += ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={place / 'known'}"]
    client += ["-o", "BatchMode=yes"]
    monkeypatch.setenv("DEFAULTPP_SSH", shlex.join(map(str, client)))
    try:
        wait_for(lambda: answers(port) or server.poll() is not None, "an sshd that listens")
        assert server.poll() is None, server.stderr.read()
        yield f"{getpass.getuser()}@127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)
        server.stderr.close()


def test_a_run_is_followed_over_ssh_with_its_whole_history(sshd, stand_in):
    training = stand_in()
    wait_for(lambda: training.step > 50, "a history")
    source = open_ssh(f"ssh://{sshd}/standin")
    try:
        records, batch = drain(source, lambda records, batch: len(records) > 150)
        assert batch.link == "live"
        assert isinstance(records[0], Header)
        assert [record.seq for record in records] == list(range(len(records)))
        assert source.send(Control(action="sample")) == "sample it is"
        assert source.title.endswith("/standin")
        training.kill()
        _, batch = drain(source, lambda records, batch: batch.link == "lost")
        assert "gone" in batch.text
        assert "127.0.0.1" in batch.text
    finally:
        source.close()


def test_the_only_run_needs_no_name_and_the_interpreter_is_the_runs_own(sshd, stand_in):
    stand_in("--steps", "2000", "--interval", "0.001")
    # The login's own python3 has no probe unless it is this very one: the registry tells.
    source = open_ssh(f"ssh://{sshd}")
    try:
        records, _ = drain(source, lambda records, batch: batch.link == "ended", "the end")
        steps = [record.step for record in records if isinstance(record, Frame)]
        assert steps == list(range(2000))
    finally:
        source.close()


def test_the_bridge_and_the_training_outlive_nothing_they_should_not(sshd, stand_in):
    training = stand_in()
    source = open_ssh(f"ssh://{sshd}/standin")
    drain(source, lambda records, batch: batch.link == "live")
    source.close()
    wait_for(lambda: not bridges_of(training.run), "the end of the bridge")
    step = training.step
    wait_for(lambda: training.step > step + 20, "further steps of the training")
    training.finish()
    assert len(load(training.trace)) > 20


def bridges_of(run):
    """Bridge processes that belong to this test's registry."""
    mine = os.environ["DEFAULTPP_STATE_DIR"].encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            if b"probe.bridge" in command and mine in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found


def test_a_broken_connection_is_lost_and_says_so(sshd, stand_in):
    training = stand_in()
    source = open_ssh(f"ssh://{sshd}/standin", remote_python=sys.executable)
    try:
        drain(source, lambda records, batch: batch.link == "live")
        for bridge in bridges_of(training.run):
            os.kill(int(bridge), 9)
        _, batch = drain(source, lambda records, batch: batch.link == "lost")
        assert "connection to 127.0.0.1 broke" in batch.text
    finally:
        source.close()


@pytest.mark.parametrize(
    ("path", "python", "said"),
    [
        ("/standin", None, "none is registered"),
        ("", None, "no run is there"),
        ("", "/nowhere/python", "/nowhere/python"),
    ],
)
def test_nothing_to_attach_to_is_one_clear_sentence(sshd, path, python, said):
    with pytest.raises(SourceError) as error:
        open_ssh(f"ssh://{sshd}{path}", remote_python=python or (sys.executable))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_host_that_refuses_is_one_clear_sentence(sshd):
    user = sshd.partition("@")[0]
    with pytest.raises(SourceError, match="cannot be reached over ssh") as error:
        open_ssh(f"ssh://{user}@127.0.0.1:{free_port()}")
    assert "refused" in str(error.value)


def test_a_login_without_the_key_is_one_clear_sentence(sshd, monkeypatch):
    monkeypatch.setenv(
        "DEFAULTPP_SSH",
        "ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o IdentityFile=/dev/null "
        "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
    )
    with pytest.raises(SourceError, match=r"cannot be reached over ssh: .*[Pp]ermission denied"):
        open_ssh(f"ssh://{sshd}")
