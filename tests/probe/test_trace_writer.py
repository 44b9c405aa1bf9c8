import errno
import os
import subprocess
import sys

from probe.trace import TraceError, TraceReader, TraceWriter


def payloads(path):
    with TraceReader(path) as reader:
        return reader.read(100_000)


def test_every_append_is_in_the_file_at_once(tmp_path):
    writer = TraceWriter(tmp_path / "a.trace")
    writer.append(b"one")
    assert payloads(tmp_path / "a.trace") == [b"one"]
    assert writer.size == (tmp_path / "a.trace").stat().st_size
    writer.close()
    writer.close()
    assert not writer.append(b"late")
    assert payloads(tmp_path / "a.trace") == [b"one"]


def test_a_killed_writer_leaves_a_readable_trace(tmp_path):
    script = (
        "import os, pathlib, sys\n"
        "from probe.trace_writer import TraceWriter\n"
        "writer = TraceWriter(pathlib.Path(sys.argv[1]))\n"
        "for i in range(100): writer.append(b'%d' % i)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "a.trace"
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == -9
    assert payloads(path) == [b"%d" % i for i in range(100)]


def test_an_older_trace_is_moved_aside_not_destroyed(tmp_path):
    for content in (b"first", b"second", b"third"):
        writer = TraceWriter(tmp_path / "a.trace")
        writer.append(content)
        writer.close()
    assert payloads(tmp_path / "a.trace") == [b"third"]
    assert payloads(tmp_path / "a.trace.1") == [b"first"]
    assert payloads(tmp_path / "a.trace.2") == [b"second"]


def test_a_foreign_file_is_not_touched(tmp_path):
    errors = []
    path = tmp_path / "train.py"
    path.write_text("import torch\n")
    writer = TraceWriter(path, on_error=errors.append)
    assert not writer.append(b"x")
    assert path.read_text() == "import torch\n"
    assert os.listdir(tmp_path) == ["train.py"]
    assert [type(error) for error in errors] == [TraceError]
    assert "is not a trace" in str(errors[0])


def test_a_place_that_is_no_file_is_refused_with_a_reason(tmp_path):
    errors = []
    assert not TraceWriter(tmp_path, on_error=errors.append).storing
    assert "is a directory" in str(errors.pop())
    os.mkfifo(tmp_path / "fifo")
    assert not TraceWriter(tmp_path / "fifo", on_error=errors.append).storing
    assert "not a regular file" in str(errors.pop())
    (tmp_path / "link").symlink_to(tmp_path / "gone" / "far")
    assert not TraceWriter(tmp_path / "link", on_error=errors.append).storing
    assert "broken link" in str(errors.pop())
    (tmp_path / "plain").write_text("x")
    assert not TraceWriter(tmp_path / "plain" / "a.trace", on_error=errors.append).storing
    assert str(tmp_path / "plain") in str(errors.pop())


def test_an_empty_file_is_used(tmp_path):
    (tmp_path / "a.trace").touch()
    writer = TraceWriter(tmp_path / "a.trace")
    writer.append(b"x")
    assert payloads(tmp_path / "a.trace") == [b"x"]
    assert os.listdir(tmp_path) == ["a.trace"]


def test_a_full_disk_ends_storing_once_and_leaves_whole_records(tmp_path, monkeypatch):
    errors = []
    path = tmp_path / "a.trace"
    writer = TraceWriter(path, on_error=errors.append)
    writer.append(b"whole")
    real, calls = os.write, []

    def nearly_full(descriptor, data):
        calls.append(len(data))
        if len(calls) == 1:
            return real(descriptor, data[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", nearly_full)
    assert not writer.append(b"does not fit")
    assert not writer.append(b"nor this")
    monkeypatch.undo()
    assert not writer.storing
    assert len(calls) == 2
    assert len(errors) == 1
    assert "No space left" in str(errors[0])
    assert payloads(path) == [b"whole"]
    assert path.stat().st_size == writer.size


def test_past_the_cap_only_thin_payloads_are_left_out_and_ever_more_of_them(tmp_path):
    writer = TraceWriter(tmp_path / "a.trace", cap_bytes=10_000)
    frame = bytes(100)
    for _ in range(20_000):
        writer.append(frame, thin=True)
    writer.append(b"end")
    writer.close()
    stored = payloads(tmp_path / "a.trace")
    assert stored[-1] == b"end"
    assert len(stored) - 1 + writer.thinned == 20_000
    # Each eighth of the cap costs twice the frames of the one before it: 20,000 frames of a cap
    # worth 90 last for six or seven such eighths.
    assert 10_000 * 1.5 < writer.size < 10_000 * 2
