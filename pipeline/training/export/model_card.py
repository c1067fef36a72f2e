"""The model card of a bundle: Markdown, every number of which comes from the manifest or an evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.bundle.int8_figures import Int8Entry, Precision
from pipeline.bundle.manifest import BundleManifest, RecipeEntry
from pipeline.model.errors import UsageError
from pipeline.training.data.intervals import RESAMPLINGS, SEED, Estimate
from pipeline.training.evaluate.evaluation_file import Evaluation
from pipeline.training.evaluate.evaluation_pictures import (
    draw_confusion,
    draw_mistakes,
    draw_reliability,
    draw_risk_coverage,
    worst_mistakes,
)
from pipeline.training.evaluate.probability_calibration import BINS, choose_with_disagreement
from pipeline.training.evaluate.set_report import SetReport, scored_cells
from pipeline.training.recipe.recipes import read_recipe

CARD_FILE = "README.md"
RISKS = (0.01, 0.02, 0.03, 0.05)
_MEASURES = (
    ("n", "labelled_cells"), ("groups", "groups"), ("accuracy", "accuracy"),
    ("without platelets", "nucleated_accuracy"), ("macro-F1", "macro_f1"), ("cell Dice", "cell_dice"),
    ("cell IoU", "cell_iou"), ("nucleus Dice", "nucleus_dice"), ("nucleus IoU", "nucleus_iou"),
    ("recall", "detection_recall"), ("precision", "detection_precision"),
)  # fmt: skip
_CALLS = (
    ("n", "labelled_cells"), ("called", "coverage"), ("right of the called", "accepted_accuracy"),
    ("coverage at 1 % risk", "coverage_at_1_percent_risk"), ("ECE", "calibration_error"),
)  # fmt: skip
_USE = """## Intended use

Finding, outlining and naming leukocytes in pictures of stained blood smears (100× oil and scanners;
Romanowsky stains), for research and for trying out workflows. A person who knows the morphology looks at the
result.

## Not intended

It is **not a medical device**. Not for a diagnosis, nor for ruling one out; not for marrow counts, tissue
sections, other stains or species, and not for telling leukaemic from healthy lymphoid cells. A laboratory
that is new to the networks has to measure them on its own cells first.
"""


@dataclass(frozen=True, slots=True)
class CardSource:
    """What a card is made from."""

    manifest: BundleManifest
    sizes_bytes: dict[str, int]
    """of the bundle's files, by name"""
    evaluations: tuple[Evaluation, ...]
    data_root: Path
    """for the crops of the mistakes"""


def write_card(source: CardSource, folder: Path) -> Path:
    """Return the card's file; it and its pictures are now in `folder`.

    Raises: UsageError, where no evaluation is of this bundle, a picture is missing, or one cannot be written.
    """
    manifest = source.manifest
    own = {
        manifest.digest_of(entry.profile, precision)
        for entry in manifest.segmenter.profiles
        for precision in Precision
    }
    if not any(evaluation.subject.bundle_digest in own for evaluation in source.evaluations):
        raise UsageError("None of the evaluations is of this bundle.", code="other_bundle")
    parts = [_head(manifest), _USE, _networks(source), _data(manifest)]
    for number, evaluation in enumerate(source.evaluations, start=1):
        parts.append(_evaluation(source, evaluation, folder, number, own))
    parts += [_timing(manifest), _training(manifest)]
    file = folder / CARD_FILE
    try:
        file.write_text("\n".join(parts), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"'{file.name}' cannot be written.", code="file_unusable") from error
    return file


def _head(manifest: BundleManifest) -> str:
    return (
        f"# Model card: {manifest.name} {manifest.version}\n\n"
        f"Trained {manifest.trained_on}; digest `{manifest.digest}`. Made by `leukoflow models card` from "
        "the manifest and the evaluations named below: no number here was typed by hand.\n"
    )


def _networks(source: CardSource) -> str:
    manifest = source.manifest
    members = (*manifest.segmenter.members, *manifest.classifier.members)
    rows = [
        (
            member.name,
            "classifier" if member in manifest.classifier.members else "segmenter",
            manifest.profiles_of(member),
            f"{member.parameters:,}",
            f"{source.sizes_bytes[member.file] / 1e6:.1f}",
            _bytes(member.int8),
        )
        for member in members
    ]
    classifier = manifest.classifier
    files = {member.stored(precision).file for member in members for precision in Precision}
    total_mb = sum(source.sizes_bytes[file] for file in files) / 1e6
    return (
        "## Networks\n\n"
        + _table(("network", "kind", "profiles", "parameters", "MB", "in bytes, on val"), rows)
        + f"\nAll weights: {total_mb:.1f} MB. Segmenters see {manifest.segmenter.working_mpp_um} µm/px and "
        "tell background, cytoplasm and nucleus; the probabilities of a profile's several are averaged. "
        f"The classifiers are always averaged; each sees {classifier.crop_px}×{classifier.crop_px} px at "
        f"{classifier.crop_mpp_um} µm/px in {classifier.views} view(s), and tells {len(manifest.classes)} "
        f"classes: {', '.join(name.replace('_', ' ') for name in manifest.classes)}.\n"
    )


def _bytes(entry: Int8Entry | None) -> str:
    if entry is None:
        return "–"
    figures = ", ".join(f"{one.measure} {one.fp32:.4f} → {one.int8:.4f}" for one in entry.gate)
    return figures if entry.file else f"refused: {figures}"


def _data(manifest: BundleManifest) -> str:
    rows = [
        (entry.folder, entry.licence, str(entry.train_images), str(entry.val_images))
        for entry in manifest.data_sets
    ]
    return "## Data\n\n" + _table(("set", "licence", "images to learn from", "images of val"), rows)


def _evaluation(source: CardSource, evaluation: Evaluation, folder: Path, number: int, own: set[str]) -> str:
    subject = evaluation.subject
    reports = evaluation.sets()
    return "\n".join(
        [
            f"## Measured {number}: {_what(evaluation, own)}\n",
            f"Through the whole pipeline, profile `{subject.profile}`: a cell that was not found is wrong, "
            "and the scale is estimated unless the file states it. Below each figure its 95 % interval, by "
            f"bootstrap over groups ({RESAMPLINGS} resamplings, seed {SEED}); fewer than about ten "
            f"groups leave it too narrow. {len(evaluation.pictures)} pictures; "
            f"{len(evaluation.skipped)} unreadable.\n",
            _figures(_MEASURES, reports),
            *_abstention(source.manifest, evaluation, reports),
            *_pictures(source, evaluation, folder, number),
        ]
    )


def _what(evaluation: Evaluation, own: set[str]) -> str:
    subject = evaluation.subject
    if subject.bundle_digest not in own:
        part = "val split" if subject.split == "val" else "laboratories left out of its training"
        return f"{part}, by another training, {subject.bundle} (`{subject.bundle_digest[:12]}`)"
    return "val split" if subject.split == "val" else "laboratories never trained on"


def _abstention(
    manifest: BundleManifest, evaluation: Evaluation, reports: Sequence[SetReport]
) -> Iterator[str]:
    spec = manifest.spec
    risk = f", chosen for a risk of {manifest.thresholds.risk}" if manifest.thresholds else ""
    yield (
        "### Calibration, and saying nothing\n\n"
        f"A call stands where the group's probability is ≥ {spec.accept_probability} and the members "
        f"disagree by ≤ {spec.max_disagreement}{risk}; else the cell is `unidentified`. Calibration error "
        f"(ECE): {BINS} equal-width bins of the called group's probability, over the found cells.\n"
    )
    yield _figures(_CALLS, reports)
    cells = scored_cells(evaluation.pictures)
    choices = [(risk, choose_with_disagreement(cells, risk)) for risk in RISKS]
    rows = [
        (
            f"{asked:.0%}",
            *(
                (f"{choice.threshold:.3f}", f"{choice.max_disagreement:.2f}", f"{choice.coverage:.3f}",
                 f"{choice.risk:.4f}", f"{choice.risk_upper:.4f}")
                if choice
                else ("none is safe enough",) + ("–",) * 4
            ),
        )
        for asked, choice in choices
    ]  # fmt: skip
    heads = (
        "risk asked for",
        "probability ≥",
        "disagreement ≤",
        "called",
        "wrong of them",
        "upper bound, 95 %",
    )
    yield "Thresholds that these cells would choose:\n\n" + _table(heads, rows)


def _pictures(source: CardSource, evaluation: Evaluation, folder: Path, number: int) -> Iterator[str]:
    scores = evaluation.pictures
    if not any(answer.found for score in scores for answer in score.answers):
        return
    draw_reliability(scores, folder / f"reliability-{number}.png")
    draw_risk_coverage(
        scores, source.manifest.spec.accept_probability, folder / f"risk-coverage-{number}.png"
    )
    yield (
        f"![reliability diagram](reliability-{number}.png) "
        f"![risk against coverage](risk-coverage-{number}.png)\n"
    )
    yield "### What fails\n\n" + _confusions(evaluation)
    for name in dict.fromkeys(score.data_set for score in scores if score.answers):
        file = f"confusion-{number}-{name.replace('/', '-')}.png"
        draw_confusion(name, [score for score in scores if score.data_set == name], folder / file)
        yield f"![confusion matrix of {name}]({file})"
    mistakes = worst_mistakes(scores)
    if mistakes:
        draw_mistakes(mistakes, source.data_root, folder / f"mistakes-{number}.png")
        yield f"\nThe surest of the wrong calls:\n\n![wrong calls](mistakes-{number}.png)\n"


def _confusions(evaluation: Evaluation) -> str:
    wrong = Counter(
        (score.data_set, answer.truth, answer.found.said if answer.found else "not found")
        for score in evaluation.pictures
        for answer in score.answers
        if not answer.right
    )
    rows = [
        (data_set, truth.replace("_", " "), said.replace("_", " "), str(count))
        for (data_set, truth, said), count in wrong.most_common(10)
    ]
    return _table(("set", "truth", "answer", "cells"), rows) if rows else "Nothing, on these pictures.\n"


def _timing(manifest: BundleManifest) -> str:
    rows = [(timing.profile.value, timing.measure, f"{timing.value:.4g}") for timing in manifest.timings]
    told = _table(("profile", "measure", "value"), rows) if rows else "Not measured yet.\n"
    return "## CPU time\n\n" + told


def _training(manifest: BundleManifest) -> str:
    recipes = [(entry.name, _seed_of(entry), f"`{entry.sha256[:16]}`") for entry in manifest.recipes]
    weights = [
        (member.name, f"`{member.recipe_sha256[:16]}`", f"`{member.weights_sha256[:16]}`")
        for member in (*manifest.segmenter.members, *manifest.classifier.members)
    ]
    software = ", ".join(f"{name} {version}" for name, version in manifest.software)
    return (
        "## How it was trained\n\n"
        + _table(("recipe", "seed", "sha256 of its text"), recipes)
        + "\n"
        + _table(("network", "recipe", "weights"), weights)
        + f"\nWith {software}. Again: `leukoflow train RECIPE --data …`, then `leukoflow models export`.\n"
    )


def _seed_of(entry: RecipeEntry) -> str:
    """The seed of the shipped recipe of that name, where its text is the one that was used."""
    try:
        recipe = read_recipe(entry.name)
    except UsageError:
        return "in the recipe"
    return str(recipe.seed) if recipe.digest == entry.sha256 else "in the recipe as it was then"


def _figures(columns: Sequence[tuple[str, str]], reports: Sequence[SetReport]) -> str:
    rows = [
        (report.data_set, *(_figure(getattr(report, field)) for _, field in columns)) for report in reports
    ]
    return _table(("set", *(heading for heading, _ in columns)), rows)


def _figure(value: Estimate | int) -> str:
    if isinstance(value, int):
        return str(value)
    if value.value is None:
        return "–"
    if value.low is None or value.high is None:
        return f"{value.value:.3f}"
    return f"{value.value:.3f}<br>{value.low:.3f}–{value.high:.3f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
