"""The principals of an embedded set, each with its own credentials and no more privileges than it needs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from db.roles import Role


class Principal(StrEnum):
    """A process, machine or person; its name is also its login at PostgreSQL and the object store."""

    SCANNER = "scanner"
    WATCHER = "watcher"
    WORKER = "worker"
    READER = "reader"
    CLERK = "clerk"
    KEEPER = "keeper"


ROLE_OF: Mapping[Principal, Role] = MappingProxyType(
    {
        Principal.WATCHER: Role.WATCHER,
        Principal.WORKER: Role.WORKER,
        Principal.READER: Role.READER,
        Principal.CLERK: Role.CLERK,
        Principal.KEEPER: Role.KEEPER,
    }
)
"""The database role of each. A scanner has no access to the database."""
