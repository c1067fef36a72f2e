"""The pictures that are stored beside a result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.model.domain import SlideResult
from pipeline.model.ports import SlideReader
from pipeline.output.pictures import gallery_sheets, jpeg, overview_picture
from pipeline.output.report import geojson_gz


@dataclass(frozen=True, slots=True)
class Picture:
    """A file beside a result: the end of its name, its type and its bytes."""

    name: str
    content_type: str
    body: bytes


def pictures_of(reader: SlideReader, result: SlideResult) -> Iterator[Picture]:
    """Yield the overview, the gallery sheets and the GeoJSON of a result."""
    cells = result.analysis.cells
    yield Picture("overview.jpg", "image/jpeg", jpeg(overview_picture(reader, cells)))
    for number, sheet in enumerate(gallery_sheets(reader, cells), start=1):
        yield Picture(f"gallery-{number:03d}.jpg", "image/jpeg", jpeg(sheet))
    yield Picture("cells.geojson.gz", "application/geo+json", geojson_gz(cells))
