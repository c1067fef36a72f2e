"""What the shipped bundle answers on one picture, and the file of the expected answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2

from pipeline.bundle.manifest import Profile
from pipeline.model.domain import Cell, SlideAnalysis
from pipeline.model.geometry import Rect
from pipeline.model.taxonomy import group_of, leaves_of
from pipeline.runtime.analysis_monitor import AnalysisMonitor
from pipeline.runtime.bundle_loader import SHIPPED
from pipeline.runtime.engines.engine_port import EngineName
from pipeline.runtime.readers.digests import digest_of
from pipeline.runtime.slide_analyser import SlideAnalyser
from pipeline.synth.plan import field_specs
from pipeline.synth.smear import draw_smear
from worker.processing.analyser import open_analyser
from worker.settings import LocalSettings, load

EXPECTED = Path(__file__).with_name("expected.json")
FIELD_SEED, FIELDS = 77, 2


@dataclass(frozen=True)
class CellAnswer:
    """One found cell; `group_probability` is that of the group, whatever leaf was named."""

    group: str
    named: str
    status: str
    group_probability: float
    area_px0: float
    nucleus_area_px0: float


@dataclass(frozen=True)
class PictureAnswer:
    """All that was found on one picture, in reading order, and which cell is the one in the middle."""

    cells: tuple[CellAnswer, ...]
    middle: int | None


@dataclass(frozen=True)
class RealPicture:
    """A picture of the data pack by its content; its size spares hashing the others."""

    data_set: str
    label: str
    file_bytes: int
    sha256: str
    answer: PictureAnswer


@dataclass(frozen=True)
class Golden:
    """The file of expected answers."""

    bundle_digest: str
    real: tuple[RealPicture, ...]
    drawn: tuple[PictureAnswer, ...]
    """of `drawn_fields`"""


@contextmanager
def shipped_analyser() -> Iterator[SlideAnalyser]:
    """Return the shipped bundle, fast profile, on the engine of the expected answers, whatever is set."""
    settings = load(LocalSettings, bundle=SHIPPED, profile=Profile.FAST, engine=EngineName.ONNXRUNTIME)
    with open_analyser(settings) as analyser:
        yield analyser


def answer_of(analyser: SlideAnalyser, picture: Path) -> PictureAnswer:
    """Return what the bundle says of one picture."""
    with analyser.open(picture) as reader:
        analysis = analyser.analyse(reader, digest_of(picture), AnalysisMonitor()).analysis
    return PictureAnswer(tuple(_cell(cell) for cell in analysis.cells), _middle(analysis))


def _cell(cell: Cell) -> CellAnswer:
    group = group_of(cell.call.cell_class)
    return CellAnswer(
        group=group.value,
        named=cell.call.cell_class.value,
        status=cell.call.status.value,
        group_probability=round(sum(cell.call.probabilities[leaf] for leaf in leaves_of(group)), 5),
        area_px0=round(cell.instance.area_px0, 1),
        nucleus_area_px0=round(cell.instance.nucleus_area_px0, 1),
    )


def _middle(analysis: SlideAnalysis) -> int | None:
    x, y = analysis.meta.size_px0.width / 2, analysis.meta.size_px0.height / 2
    reaching = [i for i, cell in enumerate(analysis.cells) if cell.instance.bbox_px0.contains(x, y)]
    return min(reaching, key=lambda i: _distance2(analysis.cells[i], x, y), default=None)


def _distance2(cell: Cell, x: float, y: float) -> float:
    centre_x, centre_y = cell.instance.centroid_px0
    return (centre_x - x) ** 2 + (centre_y - y) ** 2


def drawn_fields(folder: Path) -> Iterator[Path]:
    """Yield two drawn camera fields as PNG, always the same pixels."""
    for number, spec in enumerate(field_specs(FIELD_SEED, FIELDS)):
        size = spec.size_px0
        pixels = draw_smear(spec).read(Rect(0, 0, size.width, size.height))
        path = folder / f"field-{number}.png"
        cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        yield path


def found_by_digest(data: Path, wanted: Iterable[RealPicture]) -> dict[str, Path]:
    """Return where each picture lies below the data folder, by its digest; missing ones are not in it."""
    pictures = list(wanted)
    sizes = {picture.file_bytes for picture in pictures}
    digests = {picture.sha256 for picture in pictures}
    found: dict[str, Path] = {}
    for folder in sorted({picture.data_set for picture in pictures}):
        for path in sorted((data / folder / "images").iterdir()):
            if path.stat().st_size in sizes:
                found.setdefault(digest_of(path), path)
    return {digest: path for digest, path in found.items() if digest in digests}


def write_golden(golden: Golden, file: Path = EXPECTED) -> None:
    file.write_text(json.dumps(asdict(golden), indent=1) + "\n", encoding="utf-8")


def read_golden() -> Golden:
    """Return what the file holds; where there is none, an empty one, which fits no bundle."""
    if not EXPECTED.is_file():
        return Golden("", (), ())
    document = json.loads(EXPECTED.read_text(encoding="utf-8"))
    return Golden(
        bundle_digest=document["bundle_digest"],
        real=tuple(
            RealPicture(**{**entry, "answer": _picture(entry["answer"])}) for entry in document["real"]
        ),
        drawn=tuple(_picture(entry) for entry in document["drawn"]),
    )


def _picture(entry: dict) -> PictureAnswer:
    return PictureAnswer(tuple(CellAnswer(**cell) for cell in entry["cells"]), entry["middle"])
