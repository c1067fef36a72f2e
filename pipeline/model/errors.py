"""The error tree of leukoflow. It imports nothing.

LeukoflowError(code, scan_id)
├ InputError        the scan cannot be analysed      → quarantined at once, with a sentence for the technician
├ UsageError        the person made a mistake        → one line on stderr, exit code 2
├ DeploymentError   bundle, engine or settings wrong → stop the worker, alert
├ TransientError    store, database, broker away     → retry with jitter
└ CapacityError     out of memory for this batch     → halve the batch once, then retry

Anything else is a bug: recorded, retried a bounded number of times, quarantined.
"""

from __future__ import annotations


class LeukoflowError(Exception):
    """A failure that leukoflow names: a stable `code` for programs, a sentence for people.

    The sentence never holds a patient identifier or an object key.
    """

    def __init__(self, sentence: str, *, code: str, scan_id: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.code = code
        self.scan_id = scan_id


class InputError(LeukoflowError):
    """The bytes of the scan cannot become a result, now or later."""


class UsageError(LeukoflowError):
    """A person asked for something that cannot be done; the sentence says what to do instead."""


class DeploymentError(LeukoflowError):
    """What was installed or configured does not fit together; no scan is to blame."""


class TransientError(LeukoflowError):
    """Something outside was away; the same call may succeed later."""


class CapacityError(LeukoflowError):
    """The machine had no room for this batch."""
