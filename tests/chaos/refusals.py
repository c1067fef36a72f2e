"""Statements that PostgreSQL refuses when told to.

The triggers are laid before anybody is at work: later they would wait for those who are, and these for them.
"""

from __future__ import annotations

import psycopg

_TABLES = ("scan", "attempt", "run", "cell", "event")


def prepare_refusals(connection: psycopg.Connection) -> None:
    """Lay a trigger on each table that is written to; it refuses nothing yet."""
    refuse_none(connection)
    for table in _TABLES:
        connection.execute(
            f"CREATE TRIGGER chaos BEFORE INSERT OR UPDATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION chaos()"
        )


def refuse_half(connection: psycopg.Connection, sqlstate: str) -> None:
    """Let every second statement that writes end with an error: an SQL expression of its SQLSTATE."""
    _define(connection, f"IF random() < 0.5 THEN RAISE EXCEPTION 'chaos' USING ERRCODE = {sqlstate}; END IF;")


def refuse_none(connection: psycopg.Connection) -> None:
    """Let every statement pass."""
    _define(connection, "")


def _define(connection: psycopg.Connection, body: str) -> None:
    connection.execute(
        "CREATE OR REPLACE FUNCTION chaos() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {body} RETURN NULL; END $$"
    )
