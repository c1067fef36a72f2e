"""The errors of the ledger, and the translation of the driver's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import exc

from pipeline.model.errors import DeploymentError, LeukoflowError, TransientError

_CODES = {
    "40001": "database_serialization",
    "40P01": "database_deadlock",
    "55P03": "database_lock_timeout",
    "57014": "database_timeout",
    "25P03": "database_timeout",
    "25006": "database_read_only",
    "53100": "database_full",
    "53200": "database_full",
    "53300": "database_busy",
}
"""SQLSTATE → error code. Source: PostgreSQL 18, Appendix A."""

AWAY = "database_away"
_NOT_ALLOWED = "42501"


class LeaseLost(LeukoflowError):
    """The claim no longer holds:

    its lease expired, or another worker claimed the scan. Nothing was written.
    """

    def __init__(self, scan_id: str) -> None:
        super().__init__("the lease of this scan was lost", code="lease_lost", scan_id=scan_id)


def _driver_error(error: BaseException) -> BaseException:
    if isinstance(error, exc.DBAPIError) and error.orig is not None:
        return error.orig
    return error


def transient_code(error: BaseException) -> str | None:
    """Return the error code if the same call may succeed later, else None."""
    if isinstance(error, exc.TimeoutError):
        return "database_pool_exhausted"
    cause = _driver_error(error)
    if not isinstance(cause, psycopg.Error):
        return None
    if cause.sqlstate in _CODES:
        return _CODES[cause.sqlstate]
    if isinstance(cause, psycopg.OperationalError):
        return AWAY
    lost = isinstance(error, exc.DBAPIError) and error.connection_invalidated
    return AWAY if lost or isinstance(cause, psycopg.InterfaceError) else None


@contextmanager
def translated() -> Iterator[None]:
    """Return a context that raises transient database failures as TransientError; other errors pass
    unchanged.

    Raises: TransientError; DeploymentError, where the database user lacks a privilege.
    """
    try:
        yield
    except (exc.SQLAlchemyError, psycopg.Error) as error:
        code = transient_code(error)
        if getattr(_driver_error(error), "sqlstate", None) == _NOT_ALLOWED:
            raise DeploymentError(
                "this database user lacks a privilege for that; grant it the right role (leukoflow db roles)",
                code="database_refused",
            ) from error
        if code is None:
            raise
        raise TransientError("the database did not respond as expected", code=code) from error
