"""Draws the pictures of a result: the overview with outlined cells, and gallery sheets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from pipeline.model.domain import CallStatus, Cell, Rgb
from pipeline.model.geometry import Size
from pipeline.model.ports import SlideReader
from pipeline.model.taxonomy import CellClass, group_of
from pipeline.sampling.crops import read_px0, resized
from pipeline.sampling.thumbnail import thumbnail_of

Colour = tuple[int, int, int]

COLOURS: dict[CellClass, Colour] = {
    CellClass.NEUTROPHIL: (0, 114, 178),
    CellClass.LYMPHOCYTE: (0, 158, 115),
    CellClass.MONOCYTE: (204, 121, 167),
    CellClass.EOSINOPHIL: (213, 94, 0),
    CellClass.BASOPHIL: (60, 30, 140),
    CellClass.IMMATURE_GRANULOCYTE: (160, 130, 0),
    CellClass.BLAST: (220, 0, 0),
    CellClass.ERYTHROBLAST: (120, 60, 0),
    CellClass.PLATELET: (90, 90, 90),
    CellClass.ARTEFACT: (120, 120, 120),
}
"""By group. Source: the palette of Okabe and Ito, which is safe for colour vision deficiency."""

UNCERTAIN: Colour = (40, 40, 40)
MIN_SIDE_PX = 900
CROP_PX = 96
COLUMNS = 12
MAX_CELLS_A_SHEET = 240
JPEG_QUALITY = 90

SHORT: dict[CellClass, str] = {
    CellClass.NEUTROPHIL: "neutrophil",
    CellClass.NEUTROPHIL_SEGMENTED: "segmented",
    CellClass.NEUTROPHIL_BAND: "band",
    CellClass.IMMATURE_GRANULOCYTE: "imm. gran.",
}


def label_of(cell: Cell) -> str:
    """Return the label of a cell in pictures."""
    if cell.call.status is CallStatus.ACCEPTED:
        return SHORT.get(cell.call.cell_class, cell.call.cell_class.value)
    return "?" if cell.call.status is CallStatus.UNIDENTIFIED else "artefact"


def colour_of(cell: Cell) -> Colour:
    """Return the RGB colour of a cell's outline."""
    return COLOURS[group_of(cell.call.cell_class)] if cell.call.status is CallStatus.ACCEPTED else UNCERTAIN


def overview_picture(reader: SlideReader, cells: Iterable[Cell]) -> Rgb:
    """Return the whole scan, at most 2,048 px on a side, with each cell outlined and named."""
    size_px0 = reader.meta.size_px0
    picture = np.ascontiguousarray(_enlarged(thumbnail_of(reader)))
    ratio = np.array([picture.shape[1] / size_px0.width, picture.shape[0] / size_px0.height], np.float32)
    for cell in cells:
        outline = np.rint(cell.instance.contour_px0 * ratio).astype(np.int32)
        cv2.polylines(picture, [outline], True, colour_of(cell), 2, cv2.LINE_AA)
        _write(
            picture,
            cell,
            (cell.instance.bbox_px0.x * float(ratio[0]), cell.instance.bbox_px0.y * float(ratio[1])),
        )
    return picture


def _enlarged(thumbnail: Rgb) -> Rgb:
    height, width = thumbnail.shape[:2]
    factor = max(1, round(MIN_SIDE_PX / max(width, height)))
    return resized(thumbnail, Size(width * factor, height * factor)).copy()


def _write(picture: Rgb, cell: Cell, corner: tuple[float, float]) -> None:
    text, scale = label_of(cell), 0.45
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    x = int(min(max(0, corner[0]), max(0, picture.shape[1] - width - 4)))
    y = int(max(height + 4, corner[1] - 3))
    cv2.rectangle(picture, (x, y - height - 3), (x + width + 3, y + 3), (255, 255, 255), cv2.FILLED)
    cv2.putText(picture, text, (x + 2, y), cv2.FONT_HERSHEY_SIMPLEX, scale, colour_of(cell), 1, cv2.LINE_AA)


def gallery_sheets(reader: SlideReader, cells: Sequence[Cell]) -> Iterable[Rgb]:
    """Yield sheets of all cells, sorted by class and probability."""
    order = sorted(cells, key=lambda c: (label_of(c) == "artefact", label_of(c), -c.call.probability))
    for start in range(0, len(order), MAX_CELLS_A_SHEET):
        yield _sheet(reader, order[start : start + MAX_CELLS_A_SHEET])


def _sheet(reader: SlideReader, cells: Sequence[Cell]) -> Rgb:
    caption_px = 16
    rows = -(-len(cells) // COLUMNS)
    columns = min(COLUMNS, len(cells))
    sheet = np.full((rows * (CROP_PX + caption_px), columns * CROP_PX, 3), 255, np.uint8)
    for position, cell in enumerate(cells):
        row, column = divmod(position, COLUMNS)
        top, left = row * (CROP_PX + caption_px), column * CROP_PX
        sheet[top : top + CROP_PX, left : left + CROP_PX] = _crop(reader, cell)
        at = (left + 2, top + CROP_PX + 12)
        cv2.putText(
            sheet, label_of(cell), at, cv2.FONT_HERSHEY_SIMPLEX, 0.35, colour_of(cell), 1, cv2.LINE_AA
        )
    return sheet


def _crop(reader: SlideReader, cell: Cell) -> Rgb:
    box = cell.instance.bbox_px0
    side = max(box.width, box.height)
    margin = max(1, side // 5)
    square = box.grown(margin)
    grown = max(square.width, square.height)
    centred = type(box)(
        box.x + box.width // 2 - grown // 2, box.y + box.height // 2 - grown // 2, grown, grown
    )
    return read_px0(reader, centred, Size(CROP_PX, CROP_PX))


def jpeg(picture: Rgb) -> bytes:
    """Return the picture as JPEG bytes."""
    done, buffer = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    if not done:
        raise ValueError("the picture could not be encoded")
    return buffer.tobytes()


def png(picture: Rgb) -> bytes:
    """Return the picture as PNG bytes."""
    done, buffer = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError("the picture could not be encoded")
    return buffer.tobytes()
