from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from db.database import Database
from db.schema import upgrade


@pytest.fixture(scope="module")
def migrated(database_url: str) -> Iterator[Database]:
    upgrade(database_url)
    with Database(database_url) as database:
        yield database


@pytest.fixture
def database(migrated: Database) -> Database:
    """Return a database without rows; events stay, since nothing can remove them."""
    with migrated.transaction() as connection:
        connection.execute(text("TRUNCATE patient, scan, model_bundle CASCADE"))
    return migrated


@pytest.fixture
def rows(database: Database):
    """Return a function that answers a SQL question with plain tuples."""

    def ask(question: str, **given: object) -> list[tuple]:
        with database.transaction() as connection:
            return [tuple(row) for row in connection.execute(text(question), given)]

    return ask
