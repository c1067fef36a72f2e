"""Who comes to the servers of an embedded set, each as itself and with no more rights than it needs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from db.roles import Role


class Principal(StrEnum):
    """A process, a machine or a person; by this name it is known to PostgreSQL and to the object store."""

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
"""The database role of each. A scanner has no business in the database."""
