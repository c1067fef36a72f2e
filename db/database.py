"""The connection pool and transactions of PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from types import TracebackType
from uuid import UUID

import psycopg
from psycopg.adapt import PyFormat
from sqlalchemy import Connection, create_engine

from db.errors import translated

CONNECT_TIMEOUT_S = 5
LOCK_TIMEOUT_S = 10
STATEMENT_TIMEOUT_S = 120

_TYPES = (UUID, datetime, date, timedelta)
"""types of statement parameters for which psycopg registers its adapters lazily"""


class Database:
    """A pool of connections to one database. Connects on first use; a context manager that closes them."""

    def __init__(self, url: str, *, pool_size: int = 4) -> None:
        _register_types()
        self._engine = create_engine(
            url,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=CONNECT_TIMEOUT_S * 2,
            pool_pre_ping=True,
            hide_parameters=True,  # parameters are patients' identifiers and object keys
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "application_name": "leukoflow",
                "options": f"-c lock_timeout={LOCK_TIMEOUT_S}s -c statement_timeout={STATEMENT_TIMEOUT_S}s",
            },
        )

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Return a connection in a transaction: committed at the end, rolled back where it raises.

        Raises: TransientError, where the database is unreachable or busy, or aborted the transaction;
        DeploymentError, where it refuses this user, or the user lacks a privilege.
        """
        with translated(), self._engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close every connection of the pool."""
        self._engine.dispose()

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _register_types() -> None:
    """Register the adapters of each type now: two threads that do it at once may race, and one finds none."""
    for kind in _TYPES:
        for form in PyFormat:
            psycopg.adapters.get_dumper(kind, form)
