"""Pictures from a folder, in the input size of a graph, for int8 calibration."""

from __future__ import annotations

from pathlib import Path

from pipeline.model.domain import Rgb
from pipeline.model.errors import DeploymentError
from pipeline.model.geometry import Rect, Size
from pipeline.model.ports import SlideReader
from pipeline.runtime.engines.engine_port import GraphFile
from pipeline.runtime.readers import open_slide
from pipeline.sampling.crops import read_px0

MAX_PICTURES = 256
FIELD_PX = 512
"""side of the pictures for graphs that accept any size"""


def calibration_pictures(folder: Path, graph: GraphFile) -> list[Rgb]:
    """Return uint8 (1, H, W, 3) batches: the middle square of each picture, in the input size of the graph.

    For a graph of a fixed size, a classifier, the pictures have to be crops of one cell each.
    Raises: DeploymentError, where the folder holds no file; InputError, where a file is not a picture.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file())[:MAX_PICTURES]
    if not files:
        raise DeploymentError(f"There are no files in {folder} to calibrate on.", code="calibration_empty")
    size_px = graph.fixed_px or Size(FIELD_PX, FIELD_PX)
    return [_middle_of(file, size_px)[None] for file in files]


def _middle_of(file: Path, size_px: Size) -> Rgb:
    with open_slide(file) as reader:
        return read_px0(reader, _middle_square(reader), size_px)


def _middle_square(reader: SlideReader) -> Rect:
    size_px0 = reader.meta.size_px0
    side_px0 = min(size_px0.width, size_px0.height)
    return Rect((size_px0.width - side_px0) // 2, (size_px0.height - side_px0) // 2, side_px0, side_px0)
