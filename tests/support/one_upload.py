"""Registering a single upload."""

from __future__ import annotations

from sqlalchemy import Connection

from db.records import Arrival, Registered
from db.registration import register_many


def register(connection: Connection, arrival: Arrival, *, max_attempts: int = 3) -> Registered | None:
    """Return the new row of the upload, or None where the ledger has it already."""
    return next(iter(register_many(connection, [arrival], max_attempts=max_attempts)), None)
