"""The schema of other releases: brought up or down to a revision."""

from __future__ import annotations

from alembic import command
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from db import schema


def bring_up_to(url: str, revision: str) -> None:
    """Bring an older or empty schema up to the revision."""
    _moved(url, command.upgrade, revision)


def bring_down_to(url: str, revision: str) -> None:
    """Bring a newer schema down to the revision."""
    _moved(url, command.downgrade, revision)


def _moved(url: str, move, revision: str) -> None:
    config = schema._config()
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        move(config, revision)
