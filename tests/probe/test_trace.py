import os
import random
import stat
import struct

import pytest

from probe import trace_reader
from probe.schema import Event, Frame, encode
from probe.trace import TraceError, TraceReader, TraceWriter, load
from probe.trace_format import framed, masked_checksum, preamble


def event(seq: int, text: str = "x") -> Event:
    return Event(seq=seq, step=seq, time=0.0, kind="note", text=text)


def write(path, count=5, text="x"):
    writer = TraceWriter(path)
    for seq in range(count):
        assert writer.append(encode(event(seq, text)))
    writer.close()


def flip(path, offset, mask=0xFF):
    data = bytearray(path.read_bytes())
    data[offset] ^= mask
    path.write_bytes(bytes(data))


def test_records_come_back_in_order(tmp_path):
    write(tmp_path / "a.trace", 5)
    assert load(tmp_path / "a.trace") == [event(seq) for seq in range(5)]


def test_framing_is_tfrecords_with_zlibs_checksum():
    crc = 0xCBF43926  # CRC-32's published check value, of "123456789"
    masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    assert masked_checksum(b"123456789") == masked
    record = framed(b"123456789")
    assert struct.unpack("<Q", record[:8]) == (9,)
    assert struct.unpack("<I", record[8:12]) == (masked_checksum(record[:8]),)
    assert record[12:] == b"123456789" + struct.pack("<I", masked)


def test_only_the_owner_can_read_a_trace(tmp_path):
    write(tmp_path / "a.trace")
    assert stat.S_IMODE((tmp_path / "a.trace").stat().st_mode) == 0o600


def test_a_growing_trace_is_followed(tmp_path):
    path = tmp_path / "a.trace"
    writer = TraceWriter(path)
    writer.append(b"one")
    with TraceReader(path) as reader:
        assert reader.read(10) == [b"one"]
        assert reader.read(10) == []
        for payload in (b"two", b"three", b"four"):
            writer.append(payload)
        assert reader.read(2) == [b"two", b"three"]
        assert reader.read(2) == [b"four"]
    writer.close()


def test_every_cut_leaves_the_whole_records_and_the_rest_is_read_once_it_is_there(tmp_path):
    whole = preamble() + framed(b"first") + framed(b"second")
    for cut in range(len(preamble()), len(whole)):
        path = tmp_path / f"{cut}.trace"
        path.write_bytes(whole[:cut])
        with TraceReader(path) as reader:
            before = reader.read(10)
            assert before == ([b"first"] if cut >= len(preamble() + framed(b"first")) else [])
            path.write_bytes(whole)
            assert before + reader.read(10) == [b"first", b"second"]
            assert reader.damaged == 0


def test_a_tail_of_zeros_is_a_torn_tail(tmp_path):
    path = tmp_path / "a.trace"
    path.write_bytes(preamble() + framed(b"first") + bytes(5000))
    with TraceReader(path) as reader:
        assert reader.read(10) == [b"first"]
        path.write_bytes(preamble() + framed(b"first") + framed(b"second"))
        assert reader.read(10) == [b"second"]
        assert reader.damaged == 0


def test_a_damaged_payload_is_skipped_and_counted(tmp_path):
    path = tmp_path / "a.trace"
    write(path, 5)
    size = len(framed(encode(event(0))))
    flip(path, len(preamble()) + 2 * size + 14)
    with TraceReader(path) as reader:
        assert [record.seq for record in reader] == [0, 1, 3, 4]
        assert reader.damaged == 1


@pytest.mark.parametrize("text", ["x", "y" * 3_000_000])
def test_a_damaged_length_is_searched_past(tmp_path, text):
    path = tmp_path / "a.trace"
    write(path, 5, text)
    size = len(framed(encode(event(0, text))))
    flip(path, len(preamble()) + 2 * size)
    with TraceReader(path) as reader:
        assert [record.seq for record in reader] == [0, 1, 3, 4]
        assert reader.damaged == 1


def test_garbage_amid_a_growing_trace_is_left_behind(tmp_path):
    path = tmp_path / "a.trace"
    path.write_bytes(preamble() + framed(b"first") + os.urandom(3000))
    with TraceReader(path) as reader:
        assert reader.read(10) == [b"first"]
        with path.open("ab") as file:
            file.write(framed(b"second") + framed(b"third"))
        assert reader.read(10) == [b"second", b"third"]
        assert reader.damaged == 1


def test_a_huge_length_is_damage_not_an_allocation(tmp_path):
    path = tmp_path / "a.trace"
    length = struct.pack("<Q", 1 << 60)
    huge = length + struct.pack("<I", masked_checksum(length))
    path.write_bytes(preamble() + huge + framed(b"next"))
    with TraceReader(path) as reader:
        assert reader.read(10) == [b"next"]
        assert reader.damaged == 1


def test_an_intact_record_that_does_not_decode_counts_as_damaged(tmp_path):
    path = tmp_path / "a.trace"
    path.write_bytes(
        preamble() + framed(encode(event(0))) + framed(b"?") + framed(encode(event(2)))
    )
    with TraceReader(path) as reader:
        assert [record.seq for record in reader] == [0, 2]
        assert reader.damaged == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (preamble()[:9], "empty"),
        (b"step,loss\n1,2.0\n", "not a defaultpp trace"),
        (random.Random(0).randbytes(500), "not a defaultpp trace"),
        (framed(b"some TFRecord"), "not a defaultpp trace"),
        (framed(b"defaultpp-trace/zwei"), "not a defaultpp trace"),
        (preamble(7), "newer version 7"),
        (preamble() + framed(b"\x81\xa4type\xa5alien"), "not a message of this protocol"),
    ],
)
def test_what_is_not_our_trace_is_refused_by_name(tmp_path, content, words):
    path = tmp_path / "some.file"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_a_readable_file_is_refused(tmp_path, monkeypatch):
    with pytest.raises(TraceError, match="no such file"):
        load(tmp_path / "missing")
    with pytest.raises(TraceError, match="directory"):
        load(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(TraceError, match="not a regular file"):
        load(tmp_path / "fifo")
    write(tmp_path / "a.trace")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(TraceError, match="not readable: Permission denied"):
        load(tmp_path / "a.trace")


def test_reading_needs_no_write_permission(tmp_path):
    path = tmp_path / "a.trace"
    write(path)
    before = path.stat().st_mtime_ns
    path.chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        assert len(load(path)) == 5
        assert os.listdir(tmp_path) == ["a.trace"]
        assert path.stat().st_mtime_ns == before
    finally:
        tmp_path.chmod(0o700)


def gone_through(path, limit):
    """Everything :meth:`TraceReader.placed` tells of a trace, read ``limit`` at a time."""
    found = []
    with TraceReader(path) as reader:
        while (parts := reader.placed(limit)).records:
            places = zip(parts.offsets, parts.lengths, parts.records, strict=True)
            for offset, length, record in places:
                values = bytes(getattr(record, "values", b""))
                found.append((offset, length, type(record).__name__, record.step, values))
                told = reader.at(offset, length)
                assert (told.step, getattr(told, "values", b"")) == (record.step, values)
        return found, reader.damaged, reader.offset


@pytest.mark.parametrize("limit", [1, 7, 1000])
@pytest.mark.parametrize("seed", range(12))
def test_whole_and_damaged_records_alike_are_found_many_at_a_time(
    tmp_path, monkeypatch, seed, limit
):
    path, chance = tmp_path / "a.trace", random.Random(seed)
    with path.open("wb") as file:
        file.write(preamble())
        for seq in range(40):
            size = 4 * chance.choice([1, 30, 300])
            values = chance.randbytes(size)
            record = chance.choice([event(seq), Frame(seq=seq, step=seq, time=1.0, values=values)])
            file.write(framed(encode(record)))
    monkeypatch.setattr(trace_reader, "_CHUNK", 2000)
    size = path.stat().st_size
    for _ in range(seed % 4):
        flip(path, chance.randrange(len(preamble()), size), 1 << chance.randrange(8))
    found = gone_through(path, limit)
    monkeypatch.setattr(TraceReader, "_take_intact", lambda *_: None)  # one by one, with care
    assert gone_through(path, limit) == found
    if seed % 4 == 0:
        assert [step for _, _, _, step, _ in found[0]] == list(range(40))
