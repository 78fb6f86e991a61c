"""Which EVSE's goal the one arm serves next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from robot_charger.robot.jobs import UNPLUG_BONUS_S, Job, Jobs


def anybody(evse: int) -> bool:
    return True


def queue(*jobs: Job) -> Jobs:
    filled = Jobs()
    for job in jobs:
        filled.add(job)
    return filled


def order(jobs: Jobs, now: float) -> list[int]:
    taken = []
    while job := jobs.take_next(now, 0, anybody):
        taken.append(job.evse)
    return taken


def test_first_come_first_served():
    assert order(queue(Job(2, "b", 1.0), Job(1, "a", 0.0), Job(3, "c", 2.0)), 5.0) == [1, 2, 3]


def test_unplugging_goes_first_unless_somebody_waited_much_longer():
    assert order(queue(Job(1, "in", 0.0), Job(2, "out", 30.0, unplugs=True)), 31.0) == [2, 1]
    late = UNPLUG_BONUS_S + 1.0
    assert order(queue(Job(1, "in", 0.0), Job(2, "out", late, unplugs=True)), late) == [1, 2]


def test_an_arm_at_a_plug_serves_that_bay_only():
    jobs = queue(Job(1, "connect", 0.0), Job(2, "release", 9.0))
    assert jobs.take_next(10.0, 3, anybody) is None
    job = jobs.take_next(10.0, 2, anybody)
    assert job and job.handle == "release"
    assert jobs.take_next(10.0, 2, anybody) is None, "the arm still holds the plug of bay 2"


def test_who_may_not_move_lets_the_others_pass():
    jobs = queue(Job(1, "a", 0.0), Job(2, "b", 5.0))
    job = jobs.take_next(6.0, 0, lambda evse: evse == 2)
    assert job and job.evse == 2
    job = jobs.take_next(6.0, 0, lambda evse: False)
    assert job and job.evse == 1, "alone it is begun, and ends by its missing permit"


def test_one_goal_per_evse_and_cancelled_ones_leave():
    jobs = queue(Job(1, "old", 0.0))
    older = jobs.add(Job(1, "new", 1.0))
    assert older and older.handle == "old"
    jobs.waiting[1].cancelled = True
    assert [job.handle for job in jobs.take_cancelled()] == ["new"]
    assert jobs.take_all() == []


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=40))
def test_nobody_waits_for_ever(arrivals):
    """However others come, a goal is served before any that came UNPLUG_BONUS_S after it."""
    jobs, now = queue(Job(9, "patient", 0.0)), 0.0
    for evse, unplugs in arrivals:
        now += 10.0
        jobs.add(Job(evse, "other", now, unplugs))
        job = jobs.take_next(now, 0, anybody)
        if job and job.evse == 9:
            return
    assert now <= UNPLUG_BONUS_S + 10.0
