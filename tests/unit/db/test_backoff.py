import pytest

from db.backoff import AFTER_FAILURE, AFTER_LOST_LEASE, Backoff


@pytest.mark.parametrize(
    ("attempt", "delay_s"), [(0, 5), (1, 5), (2, 10), (3, 20), (6, 160), (7, 300), (10**6, 300)]
)
def test_a_delay_doubles_up_to_its_limit(attempt, delay_s):
    assert Backoff(first_s=5.0).delay_s(attempt) == delay_s


@pytest.mark.parametrize(("draw", "delay_s"), [(0.0, 10.0), (0.5, 15.0), (1.0, 20.0)])
def test_chance_takes_away_no_more_than_the_jitter(draw, delay_s):
    assert Backoff(first_s=5.0, jitter=0.5).delay_s(3, draw) == delay_s


def test_a_failed_attempt_is_repeated_after_half_to_all_of_its_delay():
    assert [AFTER_FAILURE.delay_s(1, draw) for draw in (0.0, 1.0)] == [2.5, 5.0]
    assert [AFTER_FAILURE.delay_s(9, draw) for draw in (0.0, 1.0)] == [150.0, 300.0]


def test_a_lost_lease_is_repeated_after_exactly_its_delay():
    assert [AFTER_LOST_LEASE.delay_s(1, draw) for draw in (0.0, 1.0)] == [2.0, 2.0]
    assert AFTER_LOST_LEASE.delay_s(9) == 300.0
