"""submit: put scans into the bucket, as a scanner would."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from db.states import Priority
from pipeline.model.errors import DeploymentError, UsageError
from pipeline.runtime.readers.digests import digest_of
from worker.ingest.identification import UNSPECIFIED, checked_id, metadata_for
from worker.key_pattern import KeyPattern, ScanIdentity
from worker.settings import load_delivery_settings
from worker.storage.object_store import ObjectStore, open_object_store


def submit(
    paths: Annotated[list[Path], typer.Argument(help="Scans, or folders of scans.")],
    patient: Annotated[str, typer.Option(help="The patient's identifier.")],
    specimen: Annotated[str, typer.Option(help="The specimen's identifier.")] = UNSPECIFIED,
    stat: Annotated[bool, typer.Option("--stat", help="Analyse before routine scans.")] = False,
) -> None:
    """Put scans into the bucket, as a scanner would."""
    settings = load_delivery_settings()
    store = open_object_store(settings, settings.bucket_scans)
    priority = Priority.STAT if stat else Priority.ROUTINE
    delivery = Delivery(
        store, KeyPattern.parse(settings.key_pattern), checked_id(patient), checked_id(specimen)
    )
    for path in scan_files(paths):
        delivery.put(path, priority)
        typer.echo(f"submitted {path}")


def scan_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files, and those in the folders, in order; hidden files are left out.

    Raises: UsageError, where a path does not exist.
    """
    for path in paths:
        if path.is_dir():
            inside = (file for file in sorted(path.rglob("*")) if file.is_file())
            yield from (file for file in inside if not file.name.startswith("."))
        elif path.is_file():
            yield path
        else:
            raise UsageError(f"there is no file or folder {path}", code="no_such_file")


def made_folder(path: Path) -> Path:
    """Return the folder, made where it is missing. Raises: UsageError, where it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"the folder {path} cannot be made: {error.strerror}", code="folder_unusable"
        ) from error
    return path


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
