"""The folder of a run: the recipe, what it was made from and with, and what came out."""

from __future__ import annotations

import hashlib
import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from pipeline.model.errors import UsageError
from pipeline.training.data.label_tables import LabelRow, Split
from pipeline.training.export.bundle_export import RECIPE_FILE, RUN_FILE
from pipeline.training.recipe.recipes import Recipe

PROVENANCE_FILE = "provenance.json"
RESULT_FILE = "result.json"
RESEARCH_FILE = "RESEARCH_ONLY.txt"
_SOFTWARE = ("leukoflow", "torch", "numpy", "opencv-python-headless", "safetensors")


def open_run(run_dir: Path, recipe: Recipe, rows: Sequence[LabelRow], data_root: Path) -> str | None:
    """Write down what the run is made from, once; return what differs harmlessly from when it was begun.

    Raises: UsageError, where the folder holds a run of another recipe or of other data.
    """
    refuse_taken(run_dir, recipe)
    provenance = _provenance(recipe, rows, data_root)
    note = run_dir / PROVENANCE_FILE
    if note.exists():
        return _compared(json.loads(note.read_text(encoding="utf-8")), provenance)
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / RECIPE_FILE).write_text(recipe.text, encoding="utf-8")
    (run_dir / RUN_FILE).write_text(_json(_images(rows)), encoding="utf-8")
    _note_research(run_dir, rows)
    note.write_text(_json(provenance), encoding="utf-8")
    return None


def refuse_taken(run_dir: Path, recipe: Recipe) -> None:
    """Return where the folder is free or of the same recipe; else raise UsageError."""
    note = run_dir / RECIPE_FILE
    if note.exists() and note.read_text(encoding="utf-8") != recipe.text:
        raise UsageError(
            "The run folder holds a run of another recipe; name another folder.", code="run-taken"
        )
    if run_dir.exists() and not run_dir.is_dir():
        raise UsageError(f"The run folder '{run_dir.name}' is a file.", code="run-taken")


def rows_digest(rows: Sequence[LabelRow], data_root: Path) -> str:
    """Return the hex sha256 of the rows' pictures' places, labels, splits, groups and subjects, in order."""
    digest = hashlib.sha256()
    for row in rows:
        place = row.image.relative_to(data_root) if row.image.is_relative_to(data_root) else row.image.name
        parts = (Path(place).as_posix(), row.label, row.label_raw, row.split, row.group, row.subject)
        digest.update(("\t".join(parts) + "\n").encode())
    return digest.hexdigest()


def write_result(run_dir: Path, result: Mapping[str, object]) -> None:
    """Write what came of the run."""
    (run_dir / RESULT_FILE).write_text(_json(result), encoding="utf-8")


def _provenance(recipe: Recipe, rows: Sequence[LabelRow], data_root: Path) -> dict[str, object]:
    folders = dict.fromkeys(row.source.folder for row in rows)
    return {
        "recipe": recipe.name,
        "recipe_sha256": recipe.digest,
        "seed": recipe.seed,
        "software": {"python": platform.python_version()} | {name: _version(name) for name in _SOFTWARE},
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "data": {
            folder: {
                "licence": part[0].source.licence,
                "rows": len(part),
                "rows_sha256": rows_digest(part, data_root),
            }
            for folder in folders
            for part in [[row for row in rows if row.source.folder == folder]]
        },
    }


def _compared(begun: Mapping[str, object], now: Mapping[str, object]) -> str | None:
    if begun.get("data") != now["data"]:
        raise UsageError(
            "The data are not those that the run was begun with; name another run folder.",
            code="data-changed",
        )
    if any(begun.get(key) != now[key] for key in ("software", "machine", "threads")):
        return "The run was begun with other software, or another number of threads: weights may not repeat."
    return None


def _images(rows: Sequence[LabelRow]) -> dict[str, dict[str, int]]:
    counts = Counter((row.source.folder, row.split) for row in rows)
    folders = dict.fromkeys(row.source.folder for row in rows)
    return {
        folder: {"train": counts[folder, Split.TRAIN], "val": counts[folder, Split.VAL]} for folder in folders
    }


def _note_research(run_dir: Path, rows: Sequence[LabelRow]) -> None:
    kept_back = {row.source.folder: row.source.licence for row in rows if not row.source.shippable}
    if not kept_back:
        return
    named = ", ".join(f"{folder} ({licence})" for folder, licence in kept_back.items())
    (run_dir / RESEARCH_FILE).write_text(
        f"For research only. These weights learned from {named}: they are not to be shipped, "
        "and no bundle can be made of this run.\n",
        encoding="utf-8",
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _json(document: Mapping[str, object]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
