"""The exceptions of leukoflow.

LeukoflowError(code, scan_id)
├ InputError        the scan cannot be analysed      → quarantined at once, with a sentence for the technician
├ UsageError        the user made a mistake          → one line on stderr, exit code 2
├ DeploymentError   bundle, engine or settings wrong → the worker stops, alert
├ TransientError    a service is unreachable         → retry with jitter
└ CapacityError     out of memory for this batch     → halve the batch once, then retry

Anything else is a bug: recorded, retried a bounded number of times, quarantined.
"""

from __future__ import annotations


class LeukoflowError(Exception):
    """The base class: a stable `code` for programs, and a sentence for people.

    The sentence never contains a patient identifier or an object key.
    """

    def __init__(self, sentence: str, *, code: str, scan_id: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.code = code
        self.scan_id = scan_id


class InputError(LeukoflowError):
    """The scan cannot be analysed, however often it is tried."""


class UsageError(LeukoflowError):
    """A mistake of the user; the sentence says what to do instead."""


class DeploymentError(LeukoflowError):
    """A mistake in the installation or the configuration; the scan is not the cause."""


class TransientError(LeukoflowError):
    """A service or resource is unavailable; the same call may succeed later."""


class CapacityError(LeukoflowError):
    """The machine has too little memory for this batch."""
