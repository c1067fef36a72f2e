"""The group roles of the database and their privileges. Data only; `db.granting` applies it.

A release must not revoke a privilege that the release before it needs: during an upgrade both use the schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from db.tables import Base


class Role(StrEnum):
    """A group role without a login; people and processes log in as members."""

    MIGRATOR = "leukoflow_migrator"
    """owns the tables; only this role may change or drop them"""
    WATCHER = "leukoflow_watcher"
    WORKER = "leukoflow_worker"
    READER = "leukoflow_reader"
    """reads the ledger and results, which the event log records"""
    CLERK = "leukoflow_clerk"
    """a reader who also assigns scans to patients and requeues them"""
    KEEPER = "leukoflow_keeper"
    """deletes expired scans"""


@dataclass(frozen=True, slots=True)
class Grant:
    """A privilege on a table or view: on the named columns, or on all of it where none is named."""

    privilege: str
    table: str
    columns: tuple[str, ...] = ()


TABLES = (*sorted(Base.metadata.tables), "alembic_version")
VIEWS = ("patient_run", "patient_differential", "scan_status")
FUNCTIONS = ("record_results_read(uuid, text, text)", "event_is_append_only()")
"""Owned by the migrator, as are the tables and views."""

RECORD_READ = FUNCTIONS[0]

# Id, time and author of an event are filled in by the database.
_EVENT = Grant("INSERT", "event", ("scan_id", "kind", "detail"))
_VERSION = Grant("SELECT", "alembic_version")
_PEOPLE = (
    Grant("SELECT", "patient", ("id", "external_id")),
    Grant("INSERT", "patient", ("external_id",)),
    Grant("SELECT", "specimen", ("id", "patient_id", "external_id")),
    Grant("INSERT", "specimen", ("patient_id", "external_id")),
)
_CLAIM = ("claimed_by", "claim_token", "lease_expires_at", "heartbeat_at")
_STATE = ("state", "error_code", "reason", "not_before", "updated_at")
_OUTCOME = ("finished_at", "outcome", "error_code", "reason")
_REGISTERED = (
    "bucket",
    "object_key",
    "version",
    "etag",
    "size_bytes",
    "slide_name",
    "state",
    "error_code",
    "reason",
    "priority",
    "max_attempts",
    "specimen_id",
)
_READABLE = (
    "patient",
    "specimen",
    "scan",
    "attempt",
    "model_bundle",
    "run",
    "cell",
    "differential",
    "artefact",
    *VIEWS,
)
_DELETABLE = ("cell", "differential", "artefact", "run", "attempt", "scan", "specimen", "patient")

GRANTS: Mapping[Role, tuple[Grant, ...]] = MappingProxyType(
    {
        Role.MIGRATOR: (),
        Role.WATCHER: (
            _VERSION,
            _EVENT,
            *_PEOPLE,
            Grant("SELECT", "scan"),
            Grant("INSERT", "scan", _REGISTERED),
            Grant("UPDATE", "scan", (*_STATE, *_CLAIM, "attempts", "queued_at", "sends")),
            Grant("SELECT", "attempt"),
            Grant("UPDATE", "attempt", _OUTCOME),
        ),
        Role.WORKER: (
            _VERSION,
            _EVENT,
            Grant("SELECT", "specimen", ("id", "patient_id")),
            Grant("SELECT", "scan"),
            Grant(
                "UPDATE",
                "scan",
                (
                    *_STATE,
                    *_CLAIM,
                    "attempts",
                    "claims",
                    "tiles_done",
                    "tiles_planned",
                    "cells_found",
                    "content_digest",
                    "same_content_as",
                    "current_run_id",
                    "completed_at",
                ),
            ),
            Grant("SELECT", "attempt"),
            Grant("INSERT", "attempt", ("scan_id", "number", "worker")),
            Grant("UPDATE", "attempt", _OUTCOME),
            Grant("SELECT", "model_bundle"),
            Grant("INSERT", "model_bundle", ("digest", "name", "manifest")),
            Grant("UPDATE", "model_bundle", ("manifest",)),
            Grant("SELECT", "run"),
            *(Grant("INSERT", table) for table in ("run", "cell", "differential", "artefact")),
        ),
        Role.READER: (_VERSION, *(Grant("SELECT", table) for table in _READABLE)),
        Role.CLERK: (
            _VERSION,
            _EVENT,
            *(Grant("SELECT", table) for table in _READABLE),
            *(grant for grant in _PEOPLE if grant.privilege == "INSERT"),
            Grant(
                "UPDATE",
                "scan",
                (
                    *_STATE,
                    "specimen_id",
                    "same_content_as",
                    "priority",
                    "background",
                    "attempts",
                    "sends",
                    "waiting_since",
                    "queued_at",
                    "completed_at",
                ),
            ),
        ),
        Role.KEEPER: (
            _VERSION,
            _EVENT,
            *_PEOPLE[::2],
            *(Grant("SELECT", table) for table in ("scan", "attempt", "run", "artefact")),
            *(Grant("SELECT", table, ("run_id",)) for table in ("cell", "differential")),
            Grant("UPDATE", "scan", ("current_run_id", "same_content_as", "updated_at")),
            *(Grant("DELETE", table) for table in _DELETABLE),
        ),
    }
)
"""The privileges of each role. Only the owner of the tables can do more with the event log than append."""

MAY_RECORD_READS = (Role.READER, Role.CLERK)
