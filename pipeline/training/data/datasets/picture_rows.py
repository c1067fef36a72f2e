"""Checks of pictures before training: size, readability and duplicates between splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from warnings import catch_warnings

from PIL import Image, UnidentifiedImageError

from pipeline.model.errors import UsageError
from pipeline.training.data.images import read_mask, read_rgb
from pipeline.training.data.label_tables import LabelRow

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"})
MAX_NAMES = 10
"""largest number of file names in a message"""


@dataclass(frozen=True, slots=True)
class ReadableRows:
    """The rows whose pictures can be read, and the others."""

    rows: tuple[LabelRow, ...]
    skipped: tuple[LabelRow, ...]

    @property
    def sentence(self) -> str:
        """A sentence about the skipped pictures; empty where there are none."""
        if not self.skipped:
            return ""
        one = len(self.skipped) == 1
        names = ", ".join(row.image.name for row in self.skipped[:MAX_NAMES])
        more = f" and {len(self.skipped) - MAX_NAMES} more" if len(self.skipped) > MAX_NAMES else ""
        return f"{len(self.skipped)} picture{' was' if one else 's were'} skipped, unreadable: {names}{more}"


def readable(rows: Iterable[LabelRow]) -> ReadableRows:
    """Return the rows whose picture and mask can be decoded, and those that are left out, in their order.

    Raises: UsageError, where more than half cannot be read, or two splits share a picture (equal pixels,
    whatever the file).
    """
    intact: list[LabelRow] = []
    skipped: list[LabelRow] = []
    sides: dict[bytes, LabelRow] = {}
    for row in rows:
        digest = _digest(row)
        if digest is None:
            skipped.append(row)
            continue
        intact.append(row)
        first = sides.setdefault(digest, row)
        if first.split is not row.split:
            raise UsageError(_copied(first, row), code="leaking_split")
    if len(skipped) > len(intact):
        raise UsageError(
            f"{len(skipped)} of {len(skipped) + len(intact)} pictures cannot be read, "
            f"{skipped[0].image.name} among them; is the data folder complete?",
            code="unreadable_pictures",
        )
    return ReadableRows(tuple(intact), tuple(skipped))


def size_px(picture: Path) -> tuple[int, int]:
    """Return (width, height) by the file's header; (0, 0) where it has none."""
    try:
        with catch_warnings(action="ignore"), Image.open(picture) as opened:
            return opened.size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError):
        return 0, 0


def pictures_in(folder: Path) -> tuple[Path, ...]:
    """Return the files of a folder that are pictures by their suffix, without hidden ones, sorted by name."""
    if not folder.is_dir():
        return ()
    files = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
    return tuple(sorted(path for path in files if path.is_file()))


def _digest(row: LabelRow) -> bytes | None:
    try:
        pixels = read_rgb(row.image)
        if row.mask is not None:
            read_mask(row.mask)
    except UsageError:
        return None
    return hashlib.blake2b(pixels.tobytes() + repr(pixels.shape).encode(), digest_size=16).digest()


def _copied(first: LabelRow, second: LabelRow) -> str:
    sets = " and ".join(dict.fromkeys((first.source.folder, second.source.folder)))
    return (
        f"The split of {sets} leaks: {first.image.name} in {first.split} and {second.image.name} in "
        f"{second.split} are the same picture."
    )
