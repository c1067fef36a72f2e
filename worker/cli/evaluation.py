"""evaluate: accuracy of a bundle on labelled pictures, through the whole pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.model.domain import SlideAnalysis
from pipeline.model.errors import UsageError
from pipeline.runtime.analysis_monitor import AnalysisMonitor
from pipeline.runtime.readers.digests import digest_of
from pipeline.runtime.slide_analyser import SlideAnalyser
from pipeline.training.data.label_tables import LabelRow, Split, read_table
from pipeline.training.data.sources import known_source, trained_patients
from pipeline.training.evaluate.end_to_end import PictureScore, Skipped, score_row
from pipeline.training.evaluate.evaluation_file import Evaluation, EvaluationSubject, render_evaluation
from worker.cli.analyse import in_order
from worker.cli.bundles import EngineOption, ProfileOption, asked_analyser
from worker.cli.evaluation_tables import print_evaluation
from worker.cli.training import DataRoot, require_training_extra

JOBS = 2
"""pictures analysed at once: one is read and outlined while the networks run on the other"""


class EvaluatedSplit(StrEnum):
    """Which pictures of a data set are measured."""

    VAL = "val"
    ALL = "all"
    """train and val: for a laboratory that the bundle was not trained on"""


_SPLITS = {EvaluatedSplit.VAL: (Split.VAL,), EvaluatedSplit.ALL: (Split.TRAIN, Split.VAL)}


@dataclass(frozen=True, slots=True)
class Choice:
    """Which pictures are measured."""

    data: Path
    split: EvaluatedSplit
    folders: tuple[str, ...]
    """empty: the data sets that the bundle names"""
    limit: int | None
    """at most so many pictures of each set"""


def evaluate(
    data: DataRoot,
    bundle: Annotated[
        Path | None, typer.Option(help="Folder of the bundle; by default the shipped one.")
    ] = None,
    profile: ProfileOption = None,
    engine: EngineOption = None,
    split: Annotated[
        EvaluatedSplit, typer.Option(help="`all`: every picture, of sets that the bundle was not trained on.")
    ] = EvaluatedSplit.VAL,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="FOLDER", help="A data set; repeatable.")
    ] = None,
    members: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Compare the members of training runs or bundles with their mean instead; repeatable.",
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the JSON document to this file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many pictures of each set.")] = None,
) -> None:
    """Measure a bundle: classes, outlines, detection, by data set, with 95 % intervals.

    With --members: each member of an ensemble, and their mean. Several folders are seeds of the same
    classifiers, or the segmenters of one ensemble.
    """
    choice = Choice(data, split, tuple(set_ or ()), limit)
    console = Console(stderr=as_json, markup=False)
    if members:
        _refuse_unused(bundle=bundle, profile=profile, engine=engine, save=save, limit=limit)
        require_training_extra()
        from worker.cli.member_tables import compare_and_print

        compare_and_print(tuple(members), choice.data, choice.folders, console if not as_json else None)
        return
    with asked_analyser(bundle, profile, engine) as analyser:
        evaluation = measured(analyser, choice, console)
    document = render_evaluation(evaluation)
    if save is not None:
        _save(save, document)
    if as_json:
        typer.echo(document)
    else:
        print_evaluation(console, evaluation)


def _refuse_unused(**options: object) -> None:
    """Raises: UsageError, where an option was given that --members ignores."""
    unused = [f"--{name}" for name, value in options.items() if value is not None]
    if unused:
        raise UsageError(f"--members does not go with {', '.join(unused)}.", code="unused_option")


def measured(analyser: SlideAnalyser, choice: Choice, console: Console) -> Evaluation:
    """Return the scores of the chosen pictures; progress is printed on the console.

    Raises: UsageError, where a data set is unknown or missing, the bundle was trained on it, or no picture
    can be read.
    """
    manifest = analyser.bundle.manifest
    trained_on = tuple(entry.folder for entry in manifest.data_sets)
    rows = _rows(choice, trained_on)
    scores: list[PictureScore] = []
    skipped: list[Skipped] = []
    for score in _scores(analyser, choice.data, rows):
        if isinstance(score, Skipped):
            console.print(f"skipped {score.picture}: {score.reason}", highlight=False)
            skipped.append(score)
        else:
            if not scores or scores[-1].data_set != score.data_set:
                console.print(f"measuring {score.data_set} ...")
            scores.append(score)
    if not scores:
        raise UsageError(f"None of the {len(rows)} pictures could be read.", code="unreadable_pictures")
    subject = EvaluationSubject(
        bundle=f"{manifest.name} {manifest.version}",
        bundle_digest=analyser.bundle.digest,
        profile=analyser.bundle.profile,
        split=choice.split.value,
        trained_on=trained_on,
    )
    return Evaluation(subject, tuple(scores), tuple(skipped))


def _rows(choice: Choice, trained_on: tuple[str, ...]) -> list[LabelRow]:
    folders = tuple(dict.fromkeys(choice.folders or trained_on))
    known = trained_patients(folders, trained_on)
    if choice.split is EvaluatedSplit.ALL and known:
        raise UsageError(
            f"The bundle was trained on the patients of {', '.join(known)}: measure the val split only.",
            code="leaking_evaluation",
        )
    rows: list[LabelRow] = []
    for folder in folders:
        table = read_table(choice.data, known_source(folder))
        rows.extend([row for row in table if row.split in _SPLITS[choice.split]][: choice.limit])
    if not rows:
        raise UsageError("There is no picture to measure.", code="no_pictures")
    return rows


def _scores(analyser: SlideAnalyser, data: Path, rows: list[LabelRow]) -> Iterator[PictureScore | Skipped]:
    def analysis(path: Path) -> SlideAnalysis:
        with analyser.open(path) as reader:
            return analyser.analyse(reader, digest_of(path), AnalysisMonitor()).analysis

    return in_order(lambda row: score_row(row, data, analysis), rows, JOBS)


def _save(file: Path, document: str) -> None:
    try:
        file.write_text(document, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"'{file.name}' cannot be written.", code="file_unusable") from error
