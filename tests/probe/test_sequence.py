"""Ordering of a stream's records, with plain numbers."""

import random

from probe.sequence import Sequencer


def test_records_in_order_pass_straight_through():
    sequencer = Sequencer()
    assert [sequencer.offer(n, n) for n in range(3)] == [[0], [1], [2]]
    assert sequencer.missing() is None


def test_a_gap_holds_back_what_follows_until_it_is_filled():
    sequencer = Sequencer()
    sequencer.offer(0, "a")
    assert sequencer.offer(3, "d") == []
    assert sequencer.offer(2, "c") == []
    assert sequencer.missing() == (1, 2)
    assert sequencer.offer(1, "b") == ["b", "c", "d"]
    assert sequencer.missing() is None


def test_duplicates_are_counted_and_never_delivered_again():
    sequencer = Sequencer()
    sequencer.offer(0, "a")
    sequencer.offer(2, "c")
    assert sequencer.offer(0, "a") == []
    assert sequencer.offer(2, "c") == []
    assert sequencer.duplicates == 2


def test_a_heartbeat_reveals_a_gap_at_the_end():
    sequencer = Sequencer()
    sequencer.offer(0, "a")
    sequencer.heard_of(4)
    assert sequencer.missing() == (1, 5)


def test_what_the_run_no_longer_holds_is_given_up_in_order():
    sequencer = Sequencer()
    sequencer.offer(2, "c")
    sequencer.offer(5, "f")
    assert sequencer.give_up(4) == ["c"]
    assert (sequencer.next_seq, sequencer.lost) == (4, 3)
    assert sequencer.give_up(5) == ["f"]
    assert (sequencer.next_seq, sequencer.lost) == (6, 4)
    assert sequencer.give_up(3) == []


def test_what_does_not_fit_the_window_is_asked_for_again():
    sequencer = Sequencer(window=2)
    for seq in (1, 2, 3):
        assert sequencer.offer(seq, seq) == []
    assert sequencer.offer(0, 0) == [0, 1, 2]
    assert sequencer.missing() == (3, 4)


def test_any_arrival_order_gives_the_stream_once_and_in_order():
    rng = random.Random(7)
    arrivals = list(range(200)) * 2
    rng.shuffle(arrivals)
    sequencer = Sequencer()
    delivered = [item for seq in arrivals for item in sequencer.offer(seq, seq)]
    assert delivered == list(range(200))
    assert sequencer.duplicates == 200
