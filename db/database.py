"""The way to PostgreSQL: one pool, one unit of work at a time."""

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

_OUR_TYPES = (UUID, datetime, date, timedelta)
"""of values in statements, for which psycopg has adapters by name alone until it first meets one"""


class Database:
    """A pool of connections to one database. Connects on first use; a context manager that closes them."""

    def __init__(self, url: str, *, pool_size: int = 4) -> None:
        _know_our_types()
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

        Raises: TransientError, where the database is away, busy, or gave up this transaction;
        DeploymentError, where it does not let this user in, or does not let it do this.
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


def _know_our_types() -> None:
    """Have psycopg look up each of our types: of two threads at its first use one may find no adapter."""
    for kind in _OUR_TYPES:
        for form in PyFormat:
            psycopg.adapters.get_dumper(kind, form)
