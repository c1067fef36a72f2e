from itertools import pairwise

import pytest

from db.states import TRANSITIONS, IllegalTransition, ScanState, require, sources_of

ENTRY = {ScanState.RECEIVED, ScanState.UNASSIGNED}
"""the states in which a scan enters the ledger"""
WAY_OF_A_SCAN = [ScanState.RECEIVED, ScanState.QUEUED, ScanState.RUNNING, ScanState.COMPLETED]


def test_every_state_has_its_line():
    assert set(TRANSITIONS) == set(ScanState)


def test_the_way_of_a_scan_is_open():
    for source, target in pairwise(WAY_OF_A_SCAN):
        require(source, target)


def test_every_state_is_reached_and_none_is_a_trap():
    reached, frontier = set(ENTRY), set(ENTRY)
    while frontier:
        frontier = {target for source in frontier for target in TRANSITIONS[source]} - reached
        reached |= frontier
    assert reached == set(ScanState)
    assert all(TRANSITIONS[state] - {state} for state in ScanState)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (ScanState.RECEIVED, ScanState.RUNNING),
        (ScanState.UNASSIGNED, ScanState.QUEUED),
        (ScanState.COMPLETED, ScanState.RUNNING),
        (ScanState.QUARANTINED, ScanState.QUEUED),
        (ScanState.QUEUED, ScanState.COMPLETED),
        (ScanState.RUNNING, ScanState.RUNNING),
    ],
)
def test_a_move_that_is_not_in_the_table_raises(source, target):
    with pytest.raises(IllegalTransition) as refused:
        require(source, target, "scan-1")
    assert (refused.value.source, refused.value.target, refused.value.scan_id) == (source, target, "scan-1")
    assert refused.value.code == "illegal_transition"


def test_sources_are_the_table_read_backwards():
    for target in ScanState:
        assert sources_of(target) == {source for source in ScanState if target in TRANSITIONS[source]}
    assert sources_of(ScanState.RUNNING) == {ScanState.QUEUED}
