"""evaluate --members: the members of ensembles and their mean, seed by seed and over all seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pipeline.model.errors import DeploymentError, UsageError
from pipeline.training.data.label_tables import LabelRow
from pipeline.training.evaluate.member_runs import (
    Ensemble,
    classifier_values,
    load_ensembles,
    rows_of,
    segmenter_values,
)
from pipeline.training.evaluate.members import Comparison, MemberValues, by_measure, compare
from worker.cli.evaluation_tables import with_interval

ALL_SEEDS = "all seeds"


@dataclass(frozen=True, slots=True)
class SeedComparison:
    """A comparison, and the training run that it is of."""

    seed: str
    """`1`, `2`, … in the order of the folders, or `all seeds`"""
    comparison: Comparison


def compare_and_print(
    places: Sequence[Path], data: Path, folders: Sequence[str], console: Console | None
) -> None:
    """Print the comparisons as tables, or, without a console, as one JSON document.

    Raises: UsageError, where a folder holds no ensemble or a broken bundle, or a data set is missing.
    """
    try:
        ensembles = load_ensembles(places)
    except DeploymentError as error:
        raise UsageError(error.sentence, code=error.code) from error
    rows = rows_of((*ensembles.classifiers, *ensembles.segmenters), data, folders)
    comparisons = [
        *_compared(ensembles.classifiers, rows, classifier_values),
        *_compared(ensembles.segmenters, rows, segmenter_values),
    ]
    if console is None:
        typer.echo(json.dumps([asdict(part) for part in comparisons], indent=1, allow_nan=False))
        return
    for measure in dict.fromkeys(part.comparison.measure for part in comparisons):
        console.print(_table(measure, [part for part in comparisons if part.comparison.measure == measure]))


def _compared(
    ensembles: Sequence[Ensemble],
    rows: Sequence[LabelRow],
    values: Callable[[Ensemble, Iterable[LabelRow]], tuple[MemberValues, ...]],
) -> list[SeedComparison]:
    if not ensembles:
        return []
    comparisons: list[SeedComparison] = []
    for seeds in by_measure([values(ensemble, rows) for ensemble in ensembles]):
        for number, seed in enumerate(seeds, start=1):
            comparisons += [SeedComparison(str(number), comparison) for comparison in compare((seed,))]
        if len(seeds) > 1:
            comparisons += [SeedComparison(ALL_SEEDS, comparison) for comparison in compare(seeds)]
    return comparisons


def _table(measure: str, comparisons: Sequence[SeedComparison]) -> Table:
    names = list(dict.fromkeys(figure.name for part in comparisons for figure in part.comparison.members))
    table = Table(
        title=f"{measure.replace('_', ' ')}: members and their mean", title_justify="left",
        box=SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for heading in ("set", "seed", "n", *names, "mean", "mean − best", "mean better?"):
        table.add_column(heading, justify="right" if heading != "set" else "left", overflow="fold")
    for part in comparisons:
        figures = {figure.name: with_interval(figure.estimate) for figure in part.comparison.members}
        table.add_row(
            part.comparison.data_set,
            part.seed,
            str(part.comparison.n),
            *(figures.get(name, "") for name in names),
            with_interval(part.comparison.mean),
            with_interval(part.comparison.difference),
            part.comparison.better.value,
        )
    return table
