"""An evaluation as a JSON file. It holds every picture's score; the figures are computed from these."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pipeline.bundle.manifest import Profile
from pipeline.model.errors import UsageError
from pipeline.training.data.intervals import RESAMPLINGS, SEED
from pipeline.training.evaluate.end_to_end import PictureScore, Skipped
from pipeline.training.evaluate.set_report import SetReport, set_reports

FORMAT = 2


@dataclass(frozen=True, slots=True)
class EvaluationSubject:
    """The bundle that was evaluated, and on what."""

    bundle: str
    """name and version"""
    bundle_digest: str
    profile: Profile
    split: str
    """`val`; or `all`, for laboratories that were not trained on"""
    trained_on: tuple[str, ...]
    """folders of the data sets that the bundle names"""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One run of `evaluate`."""

    subject: EvaluationSubject
    pictures: tuple[PictureScore, ...]
    skipped: tuple[Skipped, ...]

    def sets(self) -> tuple[SetReport, ...]:
        """Return the figures by data set and over all; this takes about a second."""
        return set_reports(self.pictures)


@dataclass(frozen=True, slots=True)
class _Document:
    format: int
    intervals: str
    evaluation: Evaluation
    sets: tuple[SetReport, ...]


_DOCUMENT = TypeAdapter(_Document)


def render_evaluation(evaluation: Evaluation) -> str:
    """Return one JSON object: `evaluation`, and `sets` with the figures and their intervals."""
    intervals = f"95 %, bootstrap over groups, {RESAMPLINGS} resamplings, seed {SEED}"
    document = _Document(FORMAT, intervals, evaluation, evaluation.sets())
    # `json`, not pydantic, writes the floats: each is read back as the same float.
    return json.dumps(_DOCUMENT.dump_python(document, mode="json"), allow_nan=False)


def read_evaluation(file: Path) -> Evaluation:
    """Return the evaluation that `render_evaluation` wrote. Raises: UsageError, where the file holds none."""
    try:
        document = _DOCUMENT.validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise UsageError(f"'{file.name}' holds no evaluation.", code="no_evaluation") from error
    if document.format != FORMAT:
        raise UsageError(f"'{file.name}' was written by another version.", code="no_evaluation")
    return document.evaluation
