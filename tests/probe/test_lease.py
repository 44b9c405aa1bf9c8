from probe.lease import SEVERAL_RANKS_SECONDS, PauseLease
from probe.schema import PAUSE_LEASE_SECONDS


def test_a_lease_lasts_while_renewed_and_lapses_once():
    lease = PauseLease()
    lease.renew(0.0)
    for second in range(1, 200):
        assert not lease.lapsed(second)
        lease.renew(second)
    assert not lease.lapsed(199 + PAUSE_LEASE_SECONDS - 0.1)
    assert lease.deadline == 199 + PAUSE_LEASE_SECONDS
    assert lease.lapsed(199 + PAUSE_LEASE_SECONDS)
    assert not lease.held
    assert not lease.lapsed(1000)


def test_resuming_ends_it():
    lease = PauseLease()
    lease.renew(0.0)
    lease.end()
    assert lease.deadline is None
    assert not lease.lapsed(100)


def test_several_ranks_are_not_held_up_for_long():
    lease = PauseLease(world_size=2)
    now = 0.0
    while not lease.lapsed(now):
        assert lease.allows(now)
        lease.renew(now)
        now += 1
    assert now == SEVERAL_RANKS_SECONDS
    for _ in range(10):  # a monitor that keeps renewing is not let in again at once
        assert not lease.allows(now)
        now += 1
    assert lease.allows(now + PAUSE_LEASE_SECONDS)
