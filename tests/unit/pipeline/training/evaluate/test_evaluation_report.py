"""Scores of pictures become figures, files and a model card; what is counted can be counted by hand."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from pipeline.bundle.int8_figures import GateFigure, Int8Entry, Precision
from pipeline.bundle.manifest import (
    BundleManifest,
    ClassifierEntry,
    DataEntry,
    MemberEntry,
    Profile,
    ProfileEntry,
    RecipeEntry,
    SegmenterEntry,
    SegmenterMember,
    Timing,
)
from pipeline.model.domain import CallStatus, SlideAnalysis
from pipeline.model.errors import InputError, UsageError
from pipeline.model.geometry import Rect, Size
from pipeline.model.spec import PipelineSpec
from pipeline.model.taxonomy import LEAVES, CellClass
from pipeline.run import analyse_slide
from pipeline.training.data.cell_metrics import Detection, Overlap
from pipeline.training.data.images import read_rgb
from pipeline.training.data.intervals import Estimate, ImageGroup
from pipeline.training.data.label_tables import Split, read_table
from pipeline.training.data.sources import SOURCES
from pipeline.training.evaluate.end_to_end import LabelledCell, PictureScore, Prediction, Skipped, score_row
from pipeline.training.evaluate.evaluation_file import (
    Evaluation,
    EvaluationSubject,
    read_evaluation,
    render_evaluation,
)
from pipeline.training.evaluate.probability_calibration import NO_CALL
from pipeline.training.evaluate.set_report import scored_cells, set_report, set_reports
from tests.support.drawn import DrawnSlide, drawn_cells, execution, models
from tests.support.drawn_pack import DrawnPack, boxes
from worker.cli.evaluation_tables import NONE, print_evaluation, with_interval

BOX = Rect(20, 20, 60, 60)


def _answer(truth: CellClass, said: CellClass | None, probability: float = 0.9) -> LabelledCell:
    if said is None:
        return LabelledCell(truth, None)
    status = CallStatus.ACCEPTED if probability >= 0.6 else CallStatus.UNIDENTIFIED
    if said is CellClass.ARTEFACT:
        status = CallStatus.ARTEFACT
    return LabelledCell(truth, Prediction(said, status, probability, 0.1, BOX))


def _score(number: int, *answers: LabelledCell, data_set: str = "bccd") -> PictureScore:
    return PictureScore(
        data_set=data_set,
        picture=f"{data_set}/images/{number}.png",
        group=ImageGroup(data_set, f"g{number}"),
        cells=answers,
        detection=Detection(1, 2, 1),
        cell_overlap=Overlap(0.9, 0.8),
        nucleus_overlap=None,
    )


N, L, P, A = CellClass.NEUTROPHIL, CellClass.LYMPHOCYTE, CellClass.PLATELET, CellClass.ARTEFACT


def _scores() -> list[PictureScore]:
    return [
        _score(1, _answer(N, N, 0.95), _answer(L, L, 0.8)),
        _score(2, _answer(N, L, 0.7), _answer(L, L, 0.5)),
        _score(3, _answer(N, None), _answer(P, None)),
        _score(4, _answer(N, A, 0.9)),
    ]


def test_figures_of_a_set_by_hand() -> None:
    report = set_report("bccd", _scores())
    assert (report.pictures, report.groups, report.labelled_cells) == (4, 4, 7)
    assert report.accuracy.value == pytest.approx(3 / 7)
    assert report.nucleated_accuracy.value == pytest.approx(3 / 6)
    assert report.coverage.value == pytest.approx(3 / 7)
    assert report.accuracy_at_coverage.value == pytest.approx(2 / 3)
    # Surest first 0.95 right, 0.8 right, 0.7 wrong: two of seven before the first error.
    assert report.coverage_at_1_percent_risk.value == pytest.approx(2 / 7)
    assert (report.detection_recall.value, report.detection_precision.value) == (1.0, 0.5)
    assert report.cell_dice.value == pytest.approx(0.9)
    assert report.nucleus_dice.value is None
    assert report.accuracy.low is not None
    assert report.accuracy.high is not None
    assert report.accuracy.low <= 3 / 7 <= report.accuracy.high


@pytest.mark.parametrize(
    "scores",
    [
        [],
        [_score(1)],
        [replace(_score(1), detection=None, cell_overlap=None)],
        [replace(_score(1), detection=Detection(0, 0, 0))],
        [_score(1, _answer(N, None)), _score(2, _answer(L, None))],
        [_score(1, _answer(N, N, 0.5)), _score(2, _answer(L, N, 0.4))],
        [_score(1, _answer(N, N)), replace(_score(2, _answer(L, L)), group=ImageGroup("bccd", "g1"))],
        [_score(1, _answer(P, P)), _score(2, _answer(P, P))],
    ],
    ids=[
        "no picture",
        "no cell",
        "no truth",
        "no box",
        "none found",
        "none accepted",
        "one group",
        "platelets",
    ],
)
def test_what_cannot_be_measured_is_a_dash_and_null(scores: list[PictureScore]) -> None:
    set_report("bccd", scores)
    evaluation = replace(_evaluation(), pictures=tuple(scores))
    document = json.loads(render_evaluation(evaluation), parse_constant=pytest.fail)
    for told, report in zip(document["sets"], evaluation.sets(), strict=True):
        for name, value in told.items():
            if isinstance(value, dict) and set(value) == {"value", "low", "high"}:
                assert (value["value"] is None) == (with_interval(getattr(report, name)) == NONE)
    printed = StringIO()
    print_evaluation(Console(file=printed, width=160), evaluation)
    assert "nan" not in printed.getvalue().lower()


def test_without_an_accepted_call_none_of_them_is_right_or_wrong() -> None:
    report = set_report("bccd", [_score(1, _answer(N, N, 0.5)), _score(2, _answer(L, N, 0.4))])
    assert (report.coverage.value, report.accuracy_at_coverage.value) == (0.0, None)


def test_one_group_has_figures_without_intervals() -> None:
    alike = replace(_score(2, _answer(L, L)), group=ImageGroup("bccd", "g1"))
    report = set_report("bccd", [_score(1, _answer(N, L)), alike])
    assert (report.groups, report.accuracy) == (1, Estimate(0.5))


def test_a_cell_without_a_call_has_no_score() -> None:
    scores = scored_cells(_scores()).scores.tolist()
    assert scores == [0.95, 0.8, 0.7, 0.5, NO_CALL, NO_CALL, NO_CALL]


@pytest.mark.parametrize(("names", "told"), [("NEUTROPHIL", 0), ("NEUTROPHIL, NEUTROPHIL", 2)])
def test_a_cell_without_a_name_counts_in_detection_only(tmp_path: Path, names: str, told: int) -> None:
    groups = [(70.0, 70.0), (190.0, 120.0)]
    wbc = boxes(*(("WBC", x - 24, y - 24, 48, 48) for x, y in groups))
    pack = DrawnPack(tmp_path)
    pack.add("bccd", "neutrophil", "val", boxes_json=wbc, label_raw=names, width="256", height="192")
    pack.write()
    (row,) = read_table(tmp_path, SOURCES["bccd"])
    picture = drawn_cells(Size(256, 192), groups)

    def analysed(_: Path) -> SlideAnalysis:
        return analyse_slide(DrawnSlide(picture, 0.25), models(), PipelineSpec(), execution())

    score = score_row(row, tmp_path, analysed)
    assert isinstance(score, PictureScore)
    assert score.detection == Detection(2, 2, 2)
    assert len(score.cells) == told
    assert all(answer.prediction is not None for answer in score.cells)


def test_several_sets_have_one_report_together() -> None:
    other = [replace(score, data_set="draaslan", group=ImageGroup("draaslan", "x")) for score in _scores()]
    reports = set_reports([*_scores(), *other])
    assert [report.data_set for report in reports] == ["bccd", "draaslan", "all"]
    assert reports[2].labelled_cells == 14


def _evaluation(digest: str = "d" * 64) -> Evaluation:
    subject = EvaluationSubject("drawn 1", digest, Profile.FAST, "val", ("bccd",))
    return Evaluation(subject, tuple(_scores()), (Skipped("bccd", "bccd/images/9.png", "It is empty."),))


def test_the_file_gives_back_what_was_measured(tmp_path: Path) -> None:
    file = tmp_path / "evaluation.json"
    file.write_text(render_evaluation(_evaluation()), encoding="utf-8")
    assert read_evaluation(file) == _evaluation()


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1}', "no JSON"])
def test_what_is_no_evaluation_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "evaluation.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="holds no evaluation"):
        read_evaluation(file)


def test_an_unreadable_picture_is_named_and_not_scored(small_pack: Path) -> None:
    row = next(r for r in read_table(small_pack, SOURCES["pbc_barcelona"]) if r.split is Split.VAL)

    def unreadable(path: Path) -> None:
        raise InputError(f"{path.suffix} is broken.", code="broken")

    skipped = score_row(row, small_pack, unreadable)
    assert isinstance(skipped, Skipped)
    assert skipped.picture.startswith("pbc_barcelona/images/")
    assert skipped.reason == ".png is broken."


@pytest.mark.parametrize("spoilt", ["missing", "broken", "small"])
def test_a_picture_whose_mask_cannot_be_compared_is_named_and_not_scored(
    small_pack: Path, tmp_path: Path, spoilt: str
) -> None:
    listed = next(r for r in read_table(small_pack, SOURCES["zheng_d1_jtsc"]) if r.mask is not None)
    mask = tmp_path / "mask.png"
    if spoilt == "broken":
        mask.write_bytes(b"no picture")
    elif spoilt == "small":
        cv2.imwrite(str(mask), np.zeros((7, 7), np.uint8))
    picture = read_rgb(listed.image)

    def analysed(_: Path) -> SlideAnalysis:
        return analyse_slide(DrawnSlide(picture, 0.25), models(), PipelineSpec(), execution())

    assert isinstance(score_row(listed, small_pack, analysed), PictureScore)
    skipped = score_row(replace(listed, mask=mask), small_pack, analysed)
    assert isinstance(skipped, Skipped)
    assert "mask.png" in skipped.reason


def _manifest() -> BundleManifest:
    member = MemberEntry("lite", "lite.onnx", "1" * 64, 4000, "2" * 64, "3" * 64)
    light = SegmenterMember("light", "light.onnx", "4" * 64, 1234567, "5" * 64, "6" * 64, 16)
    return BundleManifest(
        name="drawn",
        version="1",
        classes=tuple(leaf.value for leaf in LEAVES),
        opset=20,
        segmenter=SegmenterEntry(0.25, (light,), (ProfileEntry(Profile.FAST, ("light",)),)),
        classifier=ClassifierEntry(128, 0.18, 1, (member,)),
        data_sets=(DataEntry("bccd", "MIT", 208, 60),),
        recipes=(RecipeEntry("gone", "7" * 64),),
        thresholds=None,
        figures=(),
        timings=(Timing(Profile.FAST, "cpu_s_per_mpx", 0.4321),),
        trained_on="2026-11-22",
        software=(("numpy", "2"),),
    )


def _pack(root: Path) -> Path:
    (root / "bccd" / "images").mkdir(parents=True)
    for number in range(1, 5):
        pixels = np.random.default_rng(number).integers(0, 255, (100, 100, 3), np.uint8)
        cv2.imwrite(str(root / "bccd" / "images" / f"{number}.png"), pixels)
    return root


def test_the_card_tells_the_manifest_and_the_measured(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from pipeline.training.export.model_card import CardSource, write_card

    manifest = _manifest()
    evaluation = _evaluation(manifest.digest_of(Profile.FAST))
    sizes = {"lite.onnx": 2_000_000, "light.onnx": 4_200_000}
    file = write_card(CardSource(manifest, sizes, (evaluation,), _pack(tmp_path / "pack")), tmp_path)
    text = file.read_text(encoding="utf-8")
    for told in (
        "1,234,567",
        "6.2 MB",
        "MIT",
        "208",
        "0.4321",
        "0.429<br>",
        "neutrophil",
        "not found",
        manifest.digest,
    ):
        assert told in text
    pictures = sorted(tmp_path.glob("*.png"))
    assert {path.stem for path in pictures} == {
        "reliability-1", "risk-coverage-1", "confusion-1-bccd", "mistakes-1",
    }  # fmt: skip
    for path in pictures:
        assert f"({path.name})" in text
        assert path.stat().st_size < 150_000
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    write_card(CardSource(manifest, sizes, (evaluation,), tmp_path / "pack"), tmp_path)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before


def test_the_card_of_an_int8_bundle(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from pipeline.training.export.model_card import CardSource, write_card

    fp32 = _manifest()
    (light,), (lite,) = fp32.segmenter.members, fp32.classifier.members
    kept = Int8Entry("light.int8.onnx", "8" * 64, "minmax", (GateFigure("cell_dice", 0.9631, 0.9630),))
    refused = Int8Entry(None, None, "entropy", (GateFigure("group_macro_f1", 0.9172, 0.9085),))
    manifest = replace(
        fp32,
        segmenter=replace(fp32.segmenter, members=(replace(light, int8=kept),)),
        classifier=replace(fp32.classifier, members=(replace(lite, int8=refused),)),
    )
    evaluation = _evaluation(manifest.digest_of(Profile.FAST, Precision.INT8))
    sizes = {"lite.onnx": 2_000_000, "light.onnx": 4_200_000, "light.int8.onnx": 1_300_000}
    file = write_card(CardSource(manifest, sizes, (evaluation,), _pack(tmp_path / "pack")), tmp_path)
    text = file.read_text(encoding="utf-8")
    assert "## Evaluation 1: val split\n" in text
    assert "7.5 MB" in text
    assert "cell_dice 0.9631 → 0.9630" in text
    assert "stays in FP32: group_macro_f1 0.9172 → 0.9085" in text


def test_a_card_needs_an_evaluation_of_its_bundle(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from pipeline.training.export.model_card import CardSource, write_card

    source = CardSource(_manifest(), {}, (_evaluation("0" * 64),), tmp_path)
    with pytest.raises(UsageError, match="of this bundle"):
        write_card(source, tmp_path)


def test_the_surest_mistakes_come_first_and_research_pictures_are_not_shown() -> None:
    from pipeline.training.evaluate.evaluation_pictures import worst_mistakes

    shown = [_score(1, _answer(N, L, 0.7)), _score(2, _answer(L, N, 0.9), _answer(L, None))]
    hidden = _score(3, _answer(N, L, 0.99), data_set="research_only/all_idb2")
    assert [m.prediction.probability for m in worst_mistakes([*shown, hidden])] == [0.9, 0.7]
