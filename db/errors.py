"""The errors of the ledger, and the translation of the driver's errors."""

from __future__ import annotations

import re
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
_NOT_LET_IN = re.compile(
    "password authentication failed|no password supplied|no pg_hba.conf entry|is not permitted to log in"
)
_NO_DATABASE = re.compile('database ".*" does not exist')
"""What PostgreSQL says to whom it does not let in. libpq keeps the SQLSTATE of that to itself, so it is known
by its text; a server that speaks another language than English counts as away."""


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


def _deployment_error(error: BaseException) -> DeploymentError | None:
    """Return what to tell where this user cannot do this on this database, now or later; else None."""
    cause = _driver_error(error)
    if not isinstance(cause, psycopg.Error):
        return None
    if cause.sqlstate == _NOT_ALLOWED:
        return DeploymentError(
            "this database user lacks a privilege for that; grant it the right role (leukoflow db roles)",
            code="database_refused",
        )
    if not isinstance(cause, psycopg.OperationalError) or cause.sqlstate is not None:
        return None
    if _NOT_LET_IN.search(str(cause)):
        return DeploymentError(
            "the database refused this user or its password; LEUKOFLOW_DATABASE_URL names both",
            code="database_credentials",
        )
    if _NO_DATABASE.search(str(cause)):
        return DeploymentError(
            "the server has no database of this name; create it, or correct LEUKOFLOW_DATABASE_URL",
            code="database_missing",
        )
    return None


@contextmanager
def translated() -> Iterator[None]:
    """Return a context that raises what the database refuses or fails at as an error of ours.

    Raises: TransientError, where the same may succeed later; DeploymentError, where the user is refused or
    lacks a privilege, or the database does not exist. Other errors pass unchanged: they are bugs.
    """
    try:
        yield
    except (exc.SQLAlchemyError, psycopg.Error) as error:
        if (refusal := _deployment_error(error)) is not None:
            raise refusal from error
        code = transient_code(error)
        if code is None:
            raise
        raise TransientError("the database did not respond as expected", code=code) from error
