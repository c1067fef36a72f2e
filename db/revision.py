"""Which revision the schema of a database has, and whether this release can work with it.

Every process asks at its start, so this does without alembic, which takes a quarter of a second to import.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from db.errors import translated
from pipeline.model.errors import DeploymentError

MIGRATIONS = Path(__file__).parent / "migrations"
_CONNECT_TIMEOUT_S = 5


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """Return a connection in a transaction, over an engine of its own. Raises: as `errors.translated`."""
    engine = create_engine(
        url, poolclass=NullPool, connect_args={"connect_timeout": _CONNECT_TIMEOUT_S}, hide_parameters=True
    )
    with translated(), engine.begin() as connection:
        yield connection


def known_revisions() -> frozenset[str]:
    """Return the revisions that this release has migrations to: the numbers that their files begin with."""
    return frozenset(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def head_revision() -> str:
    """Return the revision that this release needs."""
    known = known_revisions()
    if not known:
        raise DeploymentError("this installation has no migrations", code="schema_missing")
    return max(known)


def current_revision(url: str) -> str | None:
    """Return the revision of the database; None if it has no schema.

    Raises: TransientError, where the database is unreachable.
    """
    with connected(url) as connection:
        if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar() is None:
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def require_current(url: str) -> None:
    """Raises: DeploymentError, where the schema is older than this release needs."""
    revision = current_revision(url)
    if revision is None:
        raise DeploymentError("the database has no schema; run: leukoflow db upgrade", code="schema_missing")
    # An unknown revision is newer. Migrations only expand the schema, so this release works with it.
    if revision in known_revisions() and revision != head_revision():
        raise DeploymentError(
            "the database schema is older than this release; run: leukoflow db upgrade", code="schema_old"
        )
