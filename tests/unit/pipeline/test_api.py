"""The Python API: a file and its pixels give one answer, and what is wrong is said in a sentence."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.api import Analyser, AnalysisProgress, Result
from pipeline.model.domain import Cell, ScaleSource
from pipeline.model.errors import DeploymentError, InputError, UsageError
from pipeline.model.geometry import Rect
from pipeline.model.ports import Stage
from pipeline.runtime.readers import open_slide
from pipeline.synth.plan import field_specs
from pipeline.synth.smear import draw_smear

ROOT = Path(__file__).resolve().parents[3]
GUIDE = ROOT / "docs" / "python-api.md"
MPP_UM = 0.1


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    spec = field_specs(77, 3)[2]
    return draw_smear(spec).read(Rect(0, 0, spec.size_px0.width, spec.size_px0.height))


@pytest.fixture(scope="module")
def field(pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "field.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def analyser() -> Iterator[Analyser]:
    with Analyser.open(engine="onnxruntime") as opened:
        yield opened


@pytest.fixture(scope="module")
def from_file(analyser: Analyser, field: Path) -> Result:
    return analyser.analyse(field)


def test_a_file_and_its_pixels_give_the_same_answer(
    analyser: Analyser, pixels: np.ndarray, from_file: Result
) -> None:
    from_array = analyser.analyse(pixels)
    assert len(from_file.cells) > 1
    assert same_cells(from_array, from_file)
    assert from_array.differential == from_file.differential
    assert from_array.status is from_file.status
    assert np.array_equal(from_array.overview(), from_file.overview())


def test_a_view_of_an_array_is_as_good_as_a_copy(analyser: Analyser, pixels: np.ndarray) -> None:
    bgr = np.ascontiguousarray(pixels[..., ::-1])
    assert same_cells(analyser.analyse(bgr[..., ::-1]), analyser.analyse(pixels))


def test_the_scale_of_an_array_is_taken_as_given(
    analyser: Analyser, pixels: np.ndarray, tmp_path: Path
) -> None:
    Image.fromarray(pixels).save(tmp_path / "scaled.png", dpi=(254_000, 254_000))
    with open_slide(tmp_path / "scaled.png") as reader:
        assert reader.meta.mpp is not None
        stated_um = reader.meta.mpp.um_per_px0
    from_file = analyser.analyse(tmp_path / "scaled.png")
    from_array = analyser.analyse(pixels, mpp_um=stated_um)
    assert from_array.slide.analysis.scale.source is ScaleSource.FILE
    assert same_cells(from_array, from_file)


def test_results_are_known_by_pixels_and_scale(analyser: Analyser, pixels: np.ndarray) -> None:
    corner = pixels[:160, :200]
    asked = [(corner, None), (corner, 0.1), (corner, 0.2), (corner.reshape(200, 160, 3), None)]
    digests = [analyser.analyse(array, mpp_um=um).slide.provenance.run_key.scan_digest for array, um in asked]
    assert len(set(digests)) == len(digests)
    assert analyser.analyse(corner.copy()).slide.provenance.run_key.scan_digest == digests[0]


def test_progress_is_told_in_order_up_to_the_plan(analyser: Analyser, field: Path) -> None:
    told: list[AnalysisProgress] = []
    result = analyser.analyse(str(field), progress=told.append)
    assert list(dict.fromkeys(progress.stage for progress in told)) == [
        stage for stage in Stage if stage is not Stage.CANDIDATES
    ]
    done = [progress.tiles_done for progress in told]
    assert done == sorted(done)
    assert told[-1].tiles_done == told[-1].tiles_planned > 0
    assert told[-1].cells_found >= len(result.cells)


def test_what_progress_raises_ends_the_analysis(analyser: Analyser, field: Path) -> None:
    def stop(progress: AnalysisProgress) -> None:
        if progress.stage is Stage.TILES:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analyser.analyse(field, progress=stop)
    assert analyser.analyse(field).cells


def test_threads_share_an_analyser(analyser: Analyser, field: Path, pixels: np.ndarray) -> None:
    with ThreadPoolExecutor(2) as pool:
        left, right = pool.map(analyser.analyse, (field, pixels))
    assert same_cells(left, right)


def test_a_result_as_rows_and_as_a_document(from_file: Result, field: Path) -> None:
    rows = {row.cell_class: row for row in from_file.rows()}
    for line in from_file.differential.classes:
        row = rows[line.cell_class.value]
        assert (row.count, row.percent, row.denominator) == (line.count, line.percent, line.denominator)
        assert (row.ci95_low_percent, row.ci95_high_percent) == (line.ci95_percent or (None, None))
    plain = {type(value) for row in (*from_file.rows(), *from_file.cell_rows()) for value in astuple(row)}
    assert plain <= {str, int, float, bool, type(None)}
    for cell, of_cell in zip(from_file.cells, from_file.cell_rows(), strict=True):
        assert (of_cell.x_px0, of_cell.y_px0) == cell.instance.centroid_px0
        assert (of_cell.cell_class, of_cell.call) == (cell.call.cell_class, cell.call.status)
    document = json.loads(json.dumps(from_file.document()))
    assert document["path"] == str(field)
    assert len(document["cells"]) == len(from_file.cells)


def test_a_result_is_named_in_a_line(from_file: Result) -> None:
    text = repr(from_file)
    assert "field.png" in text
    assert f"n={from_file.differential.n_leukocytes} of {len(from_file.cells)} cells" in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("array", "advice"),
    [
        (np.zeros((8, 8, 3)), "float64.*255"),
        (np.zeros((8, 8, 3), np.uint16), "uint16"),
        (np.zeros((8, 8, 3), bool), "bool"),
        (np.zeros((3, 8, 9), np.uint8), r"moveaxis\(array, 0, 2\)"),
        (np.zeros((8, 8), np.uint8), "grey"),
        (np.zeros((8, 8, 4), np.uint8), "alpha"),
        (np.zeros((8, 8, 2), np.uint8), r"\(8, 8, 2\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), "one picture at a time"),
        (np.zeros((0, 8, 3), np.uint8), "no pixel"),
        ([[[0, 0, 0]]], "numpy.asarray"),
        (None, "NoneType"),
    ],
)
def test_an_array_of_another_kind_is_a_mistake_that_says_what_to_do(
    analyser: Analyser, array: np.ndarray, advice: str
) -> None:
    with pytest.raises(UsageError, match=advice) as caught:
        analyser.analyse(array)
    assert "uint8 (height, width, 3) RGB" in caught.value.sentence


@pytest.mark.parametrize("mpp_um", [0.0, -0.1, 353.0, float("nan"), float("inf")])
def test_a_scale_that_is_no_microscope_s_is_a_mistake(analyser: Analyser, mpp_um: float) -> None:
    with pytest.raises(UsageError, match=r"mpp_um from 0\.02 to 2"):
        analyser.analyse(np.zeros((8, 8, 3), np.uint8), mpp_um=mpp_um)


def test_files_that_are_no_scans(analyser: Analyser, field: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no file .*gone\.png"):
        analyser.analyse(tmp_path / "gone.png")
    with pytest.raises(UsageError, match="There is no file"):
        analyser.analyse(tmp_path)
    with pytest.raises(UsageError, match="a file states its own"):
        analyser.analyse(field, mpp_um=MPP_UM)
    text = tmp_path / "notes.png"
    text.write_text("no picture")
    with pytest.raises(InputError, match="not an image"):
        analyser.analyse(text)


def test_options_that_are_unknown_name_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'quick' is none of fast, accurate"):
        Analyser.open(profile="quick")
    with pytest.raises(UsageError, match="'torch' is none of auto, tensorrt, openvino, onnxruntime"):
        Analyser.open(engine="torch")
    with pytest.raises(UsageError, match="threads is 0"):
        Analyser.open(threads=0)
    with pytest.raises(DeploymentError, match="no model bundle"):
        Analyser.open(bundle=tmp_path)


def test_closing_twice_is_fine_and_what_is_closed_says_so() -> None:
    analyser = Analyser.open(engine="onnxruntime", threads=1)
    analyser.close()
    analyser.close()
    with pytest.raises(UsageError, match="closed"):
        analyser.analyse(np.full((64, 64, 3), 255, np.uint8))


def test_importing_it_is_without_surprises() -> None:
    """No engine, no service, no log, no thread, no connection, and the process as it was."""
    outcome = subprocess.run(
        [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert json.loads(outcome.stdout) == {"events": [], "modules": [], "changed": [], "threads": 1}
    assert outcome.stderr == ""


IMPORT = """
import json, logging, os, random, signal, sys, threading, warnings
import cv2, numpy  # the first sets where its own libraries are looked for, whoever imports it
UNWANTED = {"onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "torch", "celery", "kombu", "sqlalchemy",
            "minio", "redis", "structlog", "pydantic_settings", "worker", "db"}
SEEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.mkdir")

def state():
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "log level": logging.getLogger().level,
        "log handlers": [str(handler) for handler in logging.getLogger().handlers],
        "signals": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
        "random": repr(random.getstate()),
        "numpy random": repr(numpy.random.get_state()),
        "numpy errors": numpy.geterr(),
        "warnings": list(warnings.filters),
        "hook": repr(sys.excepthook),
    }

events, before = [], state()
sys.addaudithook(lambda event, _arguments: events.append(event) if event.startswith(SEEN) else None)
import pipeline.api
after = state()
print(json.dumps({
    "events": list(events),
    "modules": sorted(UNWANTED & {name.partition(".")[0] for name in sys.modules}),
    "changed": [name for name in before if before[name] != after[name]],
    "threads": threading.active_count(),
}))
"""


def test_the_guide_s_examples_run(field: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "field.png").write_bytes(field.read_bytes())
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), names)
    assert {"result", "picture"} <= names.keys()


def same_cells(one: Result, other: Result) -> bool:
    """Whether two results hold the same cells to the last bit."""
    return [_values(cell) for cell in one.cells] == [_values(cell) for cell in other.cells]


def _values(cell: Cell) -> tuple[object, ...]:
    instance = cell.instance
    return (
        cell.call,
        instance.bbox_px0,
        instance.centroid_px0,
        instance.contour_px0.tolist(),
        [contour.tolist() for contour in instance.nucleus_contours_px0],
        (instance.area_px0, instance.nucleus_area_px0, instance.area_um2, instance.nucleus_area_um2),
        (instance.score, instance.touches_edge),
    )
