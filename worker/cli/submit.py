"""submit: put scans into the bucket, as a scanner would."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from db.states import Priority
from pipeline.model.errors import DeploymentError, UsageError
from pipeline.runtime.readers.digests import digest_of
from worker.cli.scan_files import asked_files
from worker.ingest.identification import UNSPECIFIED, checked_id, metadata_for
from worker.key_pattern import KeyPattern, ScanIdentity
from worker.settings import DeliverySettings, load
from worker.storage.object_store import ObjectStore, open_object_store


def submit(
    paths: Annotated[list[Path], typer.Argument(help="Scans, or folders of scans.")],
    patient: Annotated[str, typer.Option(help="The patient's identifier.")],
    specimen: Annotated[str, typer.Option(help="The specimen's identifier.")] = UNSPECIFIED,
    stat: Annotated[bool, typer.Option("--stat", help="Analyse before routine scans.")] = False,
) -> None:
    """Put scans into the bucket, as a scanner would. Files in a folder that are no pictures are skipped."""
    files = asked_files(paths)
    settings = load(DeliverySettings)
    store = open_object_store(settings, settings.bucket_scans)
    priority = Priority.STAT if stat else Priority.ROUTINE
    delivery = Delivery(
        store, KeyPattern.parse(settings.key_pattern), checked_id(patient), checked_id(specimen)
    )
    for file in files:
        delivery.put(file.path, priority)
        typer.echo(f"submitted {file.path}")


class Delivery:
    """Puts files under one patient's and specimen's keys."""

    def __init__(self, store: ObjectStore, pattern: KeyPattern, patient: str, specimen: str) -> None:
        self._store = store
        self._pattern = pattern
        self._patient = patient
        self._specimen = specimen

    def put(self, path: Path, priority: Priority) -> None:
        """Store one file. A name that is taken is never overwritten: the second gets a longer one."""
        extension = path.suffix.removeprefix(".") or "scan"
        key = self._key(path.stem, extension)
        if self._may_be_taken(key):
            key = self._key(f"{path.stem}-{digest_of(path)[:12]}", extension)
        metadata = metadata_for(self._patient, self._specimen, priority)
        try:
            self._store.put_file(key, path, "application/octet-stream", metadata)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}", code="file_unreadable") from error

    def _may_be_taken(self, key: str) -> bool:
        try:
            return self._store.exists(key)
        except DeploymentError as error:
            if error.code != "store_refused":
                raise
            return True  # a scanner's keys: they put, and see nothing

    def _key(self, slide: str, extension: str) -> str:
        return self._pattern.key_of(ScanIdentity(self._patient, self._specimen, slide), extension)
