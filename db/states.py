"""The states of a scan and the transitions between them.

A transition that is not listed raises; every statement that changes a state takes its source states from
here.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType

from pipeline.model.errors import LeukoflowError


class ScanState(StrEnum):
    """The state of a scan."""

    RECEIVED = "received"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    RETRYABLE = "retryable"
    UNASSIGNED = "unassigned"
    QUARANTINED = "quarantined"


class Priority(StrEnum):
    """STAT overtakes routine."""

    STAT = "stat"
    ROUTINE = "routine"


class AttemptOutcome(StrEnum):
    """How an attempt ended; an attempt that still runs has none."""

    COMPLETED = "completed"
    FAILED = "failed"
    LOST = "lost"
    """the lease expired: the worker died, or its heartbeats came too late"""
    HANDED_BACK = "handed_back"
    """the worker could not continue, for no fault of the scan; the attempt does not count"""


class IllegalTransition(LeukoflowError):
    """A transition that is not listed."""

    def __init__(self, source: ScanState, target: ScanState, scan_id: str | None = None) -> None:
        super().__init__(
            f"a scan cannot go from {source} to {target}", code="illegal_transition", scan_id=scan_id
        )
        self.source = source
        self.target = target


_S = ScanState

TRANSITIONS = MappingProxyType(
    {
        _S.RECEIVED: frozenset({_S.QUEUED}),
        _S.QUEUED: frozenset({_S.QUEUED, _S.RUNNING}),  # the message is sent again
        _S.RUNNING: frozenset({_S.COMPLETED, _S.RETRYABLE, _S.QUARANTINED}),
        _S.COMPLETED: frozenset({_S.RECEIVED}),  # analysed again, by request
        _S.RETRYABLE: frozenset({_S.QUEUED, _S.RECEIVED}),
        _S.UNASSIGNED: frozenset({_S.RECEIVED}),  # a person named the patient
        _S.QUARANTINED: frozenset({_S.RECEIVED}),  # a person requeued it
    }
)
"""From each state, the states that may follow."""


def sources_of(target: ScanState) -> frozenset[ScanState]:
    """Return the states from which `target` may follow."""
    return frozenset(source for source, targets in TRANSITIONS.items() if target in targets)


def require(source: ScanState, target: ScanState, scan_id: str | None = None) -> None:
    """Raises: IllegalTransition, where `target` may not follow `source`."""
    if target not in TRANSITIONS[source]:
        raise IllegalTransition(source, target, scan_id)
