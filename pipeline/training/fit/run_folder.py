"""The folder of a training run: its recipe, the data and software used, and the results."""

from __future__ import annotations

import hashlib
import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from pipeline.model.errors import UsageError
from pipeline.networks.classifiers import LeukocyteClassifier
from pipeline.training.data.label_tables import LabelRow, Split
from pipeline.training.fit.training_loop import BEST_FILE
from pipeline.training.recipe.recipes import (
    ClassifierRecipe,
    PictureRecipe,
    Recipe,
    SegmenterRecipe,
    parse_recipe,
)

RUN_FILE = "run.json"
RECIPE_FILE = "recipe.toml"
PROVENANCE_FILE = "provenance.json"
RESULT_FILE = "result.json"
RESEARCH_FILE = "RESEARCH_ONLY.txt"
_SOFTWARE = ("leukoflow", "torch", "numpy", "opencv-python-headless", "safetensors")


def recipe_of(run_dir: Path) -> SegmenterRecipe | ClassifierRecipe:
    """Return the recipe of a training run of segmenters or cell classifiers.

    Raises: UsageError, where the folder holds no training run, or one of classifiers of whole pictures.
    """
    try:
        recipe = parse_recipe((run_dir / RECIPE_FILE).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"'{run_dir.name}' holds no training run.", code="no_run") from error
    if isinstance(recipe, PictureRecipe):
        raise UsageError(
            f"'{run_dir.name}' classifies whole pictures; no bundle can be made of it.", code="wrong_run"
        )
    return recipe


def trained_segmenter(run_dir: Path, recipe: SegmenterRecipe) -> nn.Module:
    """Return the run's best segmenter. Raises: UsageError, where no epoch was completed."""
    return _with_weights(recipe.network.build(), run_dir / recipe.name)


def trained_members(run_dir: Path, recipe: ClassifierRecipe) -> dict[str, nn.Module]:
    """Return the run's best classifiers by name. Raises: UsageError, where one has no completed epoch."""
    return {
        member.name: _with_weights(
            LeukocyteClassifier(member.backbone, recipe.dropout, member.colours), run_dir / member.name
        )
        for member in recipe.members
    }


def _with_weights(network: nn.Module, folder: Path) -> nn.Module:
    file = folder / BEST_FILE
    if not file.exists():
        raise UsageError(f"The run has no trained '{folder.name}' yet.", code="no_run")
    network.load_state_dict(load_file(file))
    return network.eval()


def open_run(run_dir: Path, recipe: Recipe, rows: Sequence[LabelRow], data_root: Path) -> str | None:
    """Write recipe and provenance of a new run; return a warning where a resumed run has other software.

    Raises: UsageError, where the folder holds a run of another recipe or of other data.
    """
    require_free_or_same(run_dir, recipe)
    provenance = _provenance(recipe, rows, data_root)
    file = run_dir / PROVENANCE_FILE
    if file.exists():
        return _compared(json.loads(file.read_text(encoding="utf-8")), provenance)
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / RECIPE_FILE).write_text(recipe.text, encoding="utf-8")
    (run_dir / RUN_FILE).write_text(_json(_images(rows)), encoding="utf-8")
    _mark_research_only(run_dir, rows)
    file.write_text(_json(provenance), encoding="utf-8")
    return None


def require_free_or_same(run_dir: Path, recipe: Recipe) -> None:
    """Return where the folder is free or of the same recipe. Raises: UsageError, otherwise."""
    file = run_dir / RECIPE_FILE
    if file.exists() and file.read_text(encoding="utf-8") != recipe.text:
        raise UsageError(
            "The run folder holds a run of another recipe; name another folder.", code="run_taken"
        )
    if run_dir.exists() and not run_dir.is_dir():
        raise UsageError(f"The run folder '{run_dir.name}' is a file.", code="run_taken")


def rows_digest(rows: Sequence[LabelRow], data_root: Path) -> str:
    """Return the hex sha256 of the rows' image paths, labels, splits, groups and subjects, in order."""
    digest = hashlib.sha256()
    for row in rows:
        path = row.image.relative_to(data_root) if row.image.is_relative_to(data_root) else row.image.name
        parts = (Path(path).as_posix(), row.label, row.label_raw, row.split, row.group, row.subject)
        digest.update(("\t".join(parts) + "\n").encode())
    return digest.hexdigest()


def write_result(run_dir: Path, result: Mapping[str, object]) -> None:
    """Write the results of the run."""
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


def _compared(started: Mapping[str, object], now: Mapping[str, object]) -> str | None:
    if started.get("data") != now["data"]:
        raise UsageError(
            "The data have changed since the run was started; name another run folder.",
            code="data_changed",
        )
    if any(started.get(key) != now[key] for key in ("software", "machine", "threads")):
        return "The run was started with other software or threads: its weights may not be reproducible."
    return None


def _images(rows: Sequence[LabelRow]) -> dict[str, dict[str, int]]:
    counts = Counter((row.source.folder, row.split) for row in rows)
    folders = dict.fromkeys(row.source.folder for row in rows)
    return {
        folder: {"train": counts[folder, Split.TRAIN], "val": counts[folder, Split.VAL]} for folder in folders
    }


def _mark_research_only(run_dir: Path, rows: Sequence[LabelRow]) -> None:
    research_only = {row.source.folder: row.source.licence for row in rows if not row.source.shippable}
    if not research_only:
        return
    named = ", ".join(f"{folder} ({licence})" for folder, licence in research_only.items())
    (run_dir / RESEARCH_FILE).write_text(
        f"For research only. These weights were trained on {named}. They must not be shipped, "
        "and no bundle can be made from this run.\n",
        encoding="utf-8",
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _json(document: Mapping[str, object]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
