"""The folder of an embedded set: that it cannot be written, or has no room, is said in one line."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.model.errors import TransientError, UsageError

NEEDED_BYTES = 256 * 2**20
"""what three empty servers write, and as much again: one that runs out of room leaves a cluster half made"""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_WRITABLE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG}
)


def make_state_folder(folder: Path) -> None:
    """Make the folder with its parents; where it is there already, nothing.

    Raises: UsageError, where it cannot be written; TransientError, where its disk has not the room.
    """
    with written_to(folder):
        there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
        if shutil.disk_usage(there).free < NEEDED_BYTES:
            raise _no_room(folder)
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)


@contextmanager
def written_to(folder: Path) -> Iterator[None]:
    """Return a context for what is written to the folder.

    Raises: UsageError, where it cannot be written; TransientError, where its disk or a quota is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise _no_room(folder) from error
        if error.errno not in _NOT_WRITABLE:
            raise
        cause = (error.strerror or "").lower()
        raise UsageError(
            f"{folder} cannot be written: {cause}; choose another folder", code="state_not_writable"
        ) from error


def _no_room(folder: Path) -> TransientError:
    return TransientError(
        f"the disk of {folder} is full; the servers need {NEEDED_BYTES // 2**20} MiB to start",
        code="disk_full",
    )
