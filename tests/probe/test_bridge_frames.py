"""Framing of the bridge: pieces of any size, banners, bounds."""

import pytest

from probe.bridge_frames import GREETING, NOISE_LIMIT, PUBLISHED, FrameError, FrameReader, pack

FRAMES = [(PUBLISHED, b""), (b"A", b"x" * 300), (b"Q", GREETING)]
STREAM = b"".join(pack(kind, body) for kind, body in FRAMES)


@pytest.mark.parametrize("size", [1, 3, 64, 10_000])
def test_pieces_of_any_size_give_the_same_frames(size):
    reader = FrameReader(greeting=True)
    data = b"banner\n" + GREETING + STREAM
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert [frame for piece in pieces for frame in reader.feed(piece)] == FRAMES


def test_without_a_greeting_the_first_byte_counts():
    assert FrameReader(greeting=False).feed(STREAM) == FRAMES


def test_noise_without_a_greeting_is_bounded():
    reader = FrameReader(greeting=True)
    assert reader.feed(b"x" * NOISE_LIMIT) == []
    with pytest.raises(FrameError):
        reader.feed(b"xx")


def test_a_frame_over_the_limit_is_refused_before_it_arrives():
    reader = FrameReader(greeting=False, limit=10)
    assert reader.feed(pack(b"Q", b"x" * 10)) == [(b"Q", b"x" * 10)]
    with pytest.raises(FrameError):
        reader.feed(pack(b"Q", b"x" * 11)[:5])
