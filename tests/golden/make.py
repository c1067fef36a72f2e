"""Make the expected answers anew, after every change of the shipped bundle: `python -m tests.golden.make`.

Look at the difference before committing it: it is what the change does to real cells.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.bundle.manifest import Profile
from pipeline.runtime.readers.digests import digest_of
from pipeline.runtime.slide_analyser import SlideAnalyser
from pipeline.training.data.label_tables import LabelRow, Split, read_table
from pipeline.training.data.sources import SOURCES
from tests.golden.answers import (
    Golden,
    RealPicture,
    answer_of,
    drawn_fields,
    shipped_analyser,
    write_golden,
)

REAL = 24
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def main() -> None:
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else DATA
    with shipped_analyser() as analyser, TemporaryDirectory() as folder:
        real = tuple(_real(analyser, row) for row in chosen_rows(data))
        drawn = tuple(answer_of(analyser, path) for path in drawn_fields(Path(folder)))
        digest = analyser.bundle.manifest.digest_of(Profile.FAST)
    write_golden(Golden(digest, real, drawn))
    print(f"{len(real)} real pictures, {len(drawn)} drawn")


def chosen_rows(data: Path) -> list[LabelRow]:
    """Return 24 val pictures: the sets in turn, and within a set its labels in turn."""
    by_set = [list(_labels_in_turn(data, folder)) for folder in SOURCES]
    turns = chain.from_iterable(zip_longest(*by_set))
    return [row for row in turns if row is not None][:REAL]


def _labels_in_turn(data: Path, folder: str) -> Iterator[LabelRow]:
    by_label: dict[str, list[LabelRow]] = {}
    for row in sorted(read_table(data, SOURCES[folder]), key=lambda row: row.image.name):
        if row.split is Split.VAL:
            by_label.setdefault(row.label, []).append(row)
    labels = sorted(by_label)
    # Each set begins with another label, so that few pictures show many classes.
    start = list(SOURCES).index(folder) % max(1, len(labels))
    turns = chain.from_iterable(zip_longest(*(by_label[label] for label in labels[start:] + labels[:start])))
    yield from (row for row in turns if row is not None)


def _real(analyser: SlideAnalyser, row: LabelRow) -> RealPicture:
    size_bytes, digest = row.image.stat().st_size, digest_of(row.image)
    return RealPicture(row.source.folder, row.label, size_bytes, digest, answer_of(analyser, row.image))


if __name__ == "__main__":
    main()
