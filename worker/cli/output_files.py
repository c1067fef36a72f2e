"""Files and folders that commands write."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from pipeline.model.errors import UsageError


def made_folder(path: Path) -> Path:
    """Return the folder, made where it is missing. Raises: UsageError, where it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"the folder {path} cannot be made: {error.strerror}", code="folder_unusable"
        ) from error
    return path


def write_whole(path: Path, body: bytes) -> None:
    """Write the file and the folders above it; where that fails, nothing of it is left.

    Raises: UsageError, where the folder cannot be written to, or the disk is full.
    """
    part = path.with_name(f".{uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(body)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):  # where nothing can be written, there may be nothing to remove
            part.unlink(missing_ok=True)
        raise UsageError(f"{path} cannot be written: {error.strerror}", code="output_unwritable") from error
