"""The scans that a person names: files, and folders of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

from pipeline.model.errors import UsageError

SIDECAR_ENDINGS = frozenset({
    ".csv", ".db", ".doc", ".docx", ".geojson", ".gz", ".htm", ".html", ".ini", ".json", ".log", ".md",
    ".md5", ".pdf", ".sha256", ".toml", ".tsv", ".txt", ".xls", ".xlsx", ".xml", ".yaml", ".yml",
})  # fmt: skip
"""Of files that lie beside scans and are none; `.db` and `.ini` are Windows' Thumbs.db and desktop.ini."""


@dataclass(frozen=True, slots=True)
class ScanFile:
    """A file that is to be analysed or submitted."""

    path: Path
    """as the person gave it"""
    patient_folder: Path
    """what its counts are pooled under: the folder in the given folder that holds it, else the given folder;
    for a file that was named itself, the folder that it lies in"""
    place: Path
    """its path below the folder that holds all that was given"""


def asked_files(paths: Iterable[Path]) -> list[ScanFile]:
    """Return the named files, and those in the named folders and the folders in them, each once, in order.

    In folders, files that are no pictures are skipped: hidden ones, and those with a sidecar's ending. How
    many is said on stderr.
    Raises: UsageError, where a path does not exist or cannot be read, or a folder holds no scan.
    """
    folders = [(path, path if _is_folder(path) else path.parent) for path in paths]
    above = os.path.commonpath([folder.resolve() for _, folder in folders])
    found: dict[Path, ScanFile] = {}
    skipped = 0
    for path, folder in folders:
        if path == folder:
            inside = list(_files_in(folder))
            scans = [file for file in inside if file.is_file() and _may_be_scan(file.relative_to(folder))]
            skipped += len(inside) - len(scans)
            if not scans:
                raise UsageError(_nothing_in(folder, len(inside)), code="folder_without_scans")
        else:
            scans = [path]
        for scan in scans:
            below = scan.relative_to(folder)
            place = folder.resolve() / below
            patient = folder / below.parts[0] if len(below.parts) > 1 else folder
            found.setdefault(place, ScanFile(scan, patient, place.relative_to(above)))
    if skipped:
        typer.echo(f"leukoflow: {_no_pictures(skipped)} skipped", err=True)
    return list(found.values())


def _is_folder(path: Path) -> bool:
    try:
        if path.is_dir():
            return True
        if path.is_file():
            return False
    except OSError as error:
        raise _unreadable(path, error) from error
    raise UsageError(f"there is no file or folder {path}", code="no_such_file")


def _files_in(folder: Path) -> Iterator[Path]:
    """Yield all files in the folder and the folders in it. Raises: UsageError, where one cannot be read."""
    files = []
    try:
        for parent, _, names in os.walk(folder, onerror=_raise):
            files += [Path(parent, name) for name in names]
    except OSError as error:
        raise _unreadable(Path(error.filename or folder), error) from error
    yield from sorted(files)


def _raise(error: OSError) -> None:
    raise error


def _may_be_scan(below: Path) -> bool:
    hidden = any(part.startswith(".") for part in below.parts)
    return not hidden and below.suffix.lower() not in SIDECAR_ENDINGS


def _unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path} cannot be read: {error.strerror}", code="file_unreadable")


def _nothing_in(folder: Path, skipped: int) -> str:
    what = f"; {_no_pictures(skipped)} skipped" if skipped else ""
    return f"there is no scan in the folder {folder}{what}"


def _no_pictures(count: int) -> str:
    return "1 file that is no picture was" if count == 1 else f"{count} files that are no pictures were"
