"""Whom a worker takes for dead, from what it sees of the leases."""

from durable.protocols import Live, WorkerInfo
from durable.worker.leases import Leases

LEASE, SWEEP = 1500, 300


def looked(*looks: tuple[int, str]) -> Live:
    """What `me` makes of these looks: when each was, and who held a lease then."""
    leases = Leases("me", lease_ms=LEASE, interval_ms=SWEEP)
    for at, held in looks:
        leases.look(Live({worker: WorkerInfo(worker, at + LEASE) for worker in held.split()}, at))
    return leases.live


def test_who_holds_no_lease_is_dead_at_the_first_look() -> None:
    assert looked((10_000, "other")) == Live(
        {"other": WorkerInfo("other", 11_500), "me": WorkerInfo("me", 10_000)}, 10_000
    )


def test_before_any_look_nobody_is_dead() -> None:
    assert looked() == Live({}, 0)


def test_who_lets_its_lease_run_out_while_the_store_answers_is_dead_at_once() -> None:
    looks = [(10_000 + n * SWEEP, "other") for n in range(5)]
    assert looked(*looks, (11_500, "")).workers.keys() == {"me"}
    assert looked(*looks, (11_500, "")).at == 11_500


def test_after_the_store_was_away_nobody_is_dead_for_the_time_of_a_lease() -> None:
    away = [(10_000, "other"), (14_000, "")]
    assert looked(*away) == Live({}, 0)
    assert looked(*away, (14_300, "me"), (15_499, "me")) == Live({}, 0)
    dead = looked(*away, (15_200, "me"), (15_500, "me"))
    assert (dead.workers.keys(), dead.at) == ({"me"}, 15_500)


def test_who_came_back_in_time_is_alive() -> None:
    back = looked((10_000, "other"), (14_000, ""), (14_300, "other"), (15_000, "other"), (15_500, "other"))
    assert back.workers.keys() == {"me", "other"}


def test_a_store_so_slow_that_all_looks_are_far_apart_does_not_keep_the_dead_alive() -> None:
    slow = [(10_000, "other"), (14_000, ""), (18_000, "")]
    assert looked(*slow).at == 18_000
    assert looked(*slow, (22_000, "")) == Live({}, 0)
    assert looked(*slow, (22_000, ""), (26_000, "")).at == 26_000
