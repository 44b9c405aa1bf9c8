from probe.backlog import RecordRing


def filled(count, cap=10_000_000, size=10):
    ring = RecordRing(cap)
    for seq in range(count):
        ring.append(b"%d" % seq + b"." * size, header=seq == 0)
    return ring


def numbers(part):
    return [int(payload.split(b".")[0]) for payload in part.records]


def test_a_span_is_given_back():
    ring = filled(100)
    part = ring.part(10, 20)
    assert numbers(part) == list(range(10, 20))
    assert (part.next_seq, part.more) == (20, False)
    assert numbers(ring.part(0, None)) == list(range(100))


def test_parts_join_to_the_whole():
    ring = filled(1000)
    found, first, more = [], 0, True
    while more:
        part = ring.part(first, None, limit_bytes=500)
        found += numbers(part)
        assert 0 < len(part.records) < 20
        first, more = part.next_seq, part.more
    assert found == list(range(1000))


def test_a_record_larger_than_a_part_still_leaves():
    ring = RecordRing()
    ring.append(b"x" * 5000)
    ring.append(b"y")
    part = ring.part(0, None, limit_bytes=100)
    assert part.records == (b"x" * 5000,)
    assert (part.next_seq, part.more) == (1, True)


def test_memory_is_bounded_and_the_header_stays():
    ring = filled(10_000, cap=100_000, size=60)
    everything = numbers(ring.part(0, None))
    assert everything[0] == 0
    assert everything[1] > 8000
    assert everything[1:] == list(range(everything[1], 10_000))
    assert ring.first_seq == 0
    assert len(ring._payloads) < 5000  # emptied places are removed in the end


def test_many_empty_records_do_not_escape_the_cap():
    ring = RecordRing(10_000)
    for _ in range(10_000):
        ring.append(b"")
    assert len(ring.part(0, None).records) <= 10_000 / 40


def test_a_later_header_replaces_the_kept_one():
    ring = filled(1000, cap=5_000)
    ring.append(b"1000.", header=True)
    for seq in range(1001, 2000):
        ring.append(b"%d." % seq)
    assert numbers(ring.part(0, None))[0] == 1000
    assert numbers(ring.part(1001, None))[0] > 1001


def test_evicted_spans_are_skipped_and_make_progress():
    ring = filled(1000, cap=5_000)
    part = ring.part(5, 10)
    assert part.records == ()
    assert (part.next_seq, part.more) == (10, False)


def test_absurd_spans_are_empty():
    ring = filled(10)
    for first, last in ((50, None), (8, 3), (-5, 0), (0, -1), (2**62, 2**62 + 1)):
        part = ring.part(first, last)
        assert part.records == ()
        assert not part.more
    assert numbers(ring.part(-5, 3)) == [0, 1, 2]
    assert not RecordRing().part(0, None).more
