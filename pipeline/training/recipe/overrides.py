"""What a person changes of a recipe on the command line; it becomes part of the recipe's text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.model.errors import UsageError
from pipeline.training.recipe.recipe_fields import Table

_BLOCK = re.compile(r"^\[overrides\]\n(?:(?!\[).*\n?)*", re.MULTILINE)
_KEYS = ("seed", "epochs", "folders", "leave_out", "fold", "teacher")


@dataclass(frozen=True, slots=True)
class Teacher:
    """A trained segmenter that another one learns from."""

    name: str
    weights_sha256: str
    run_dir: Path
    """where its run lies just now; not told, for it changes nothing"""

    @property
    def told(self) -> str:
        """Name and digest of the weights: what a recipe's text says of it."""
        return f"{self.name} {self.weights_sha256}"


@dataclass(frozen=True, slots=True)
class Overrides:
    """Values that replace the recipe's; what is None or empty stays as the recipe has it."""

    seed: int | None = None
    epochs: int | None = None
    folders: tuple[str, ...] = ()
    """learn from these data sets instead"""
    leave_out: tuple[str, ...] = ()
    """learn without these data sets"""
    fold: str | None = None
    """'2/5': the second of five parts, in whole groups, is val"""
    teacher: Teacher | None = None
    """learn also from what it draws"""

    def lines(self) -> dict[str, str]:
        """Return the TOML of each value that is set, by key."""
        values: dict[str, int | str | list[str] | None] = {
            "seed": self.seed,
            "epochs": self.epochs,
            "folders": list(self.folders) or None,
            "leave_out": list(self.leave_out) or None,
            "fold": self.fold,
            "teacher": None if self.teacher is None else self.teacher.told,
        }
        return {
            key: f"{key} = {json.dumps(value, ensure_ascii=False)}"
            for key, value in values.items()
            if value is not None
        }


AS_WRITTEN = Overrides()


def overridden(text: str, overrides: Overrides) -> str:
    """Return the recipe's text with the overrides in a table of their own at its end.

    Overrides that the text already holds stay, where no new one replaces them.
    """
    lines = overrides.lines()
    if not lines:
        return text
    held = _BLOCK.search(text)
    if held is not None:
        before = dict(_assigned(line) for line in held.group().splitlines()[1:] if "=" in line)
        lines = before | lines
        text = text[: held.start()] + text[held.end() :]
    return text.rstrip("\n") + "\n\n[overrides]\n" + "\n".join(lines.values()) + "\n"


def applied(document: Table) -> Table:
    """Return the document with its table [overrides] laid over the rest.

    Raises: UsageError, for an override that there is not.
    """
    table = document.get("overrides", {})
    schedule = document.get("schedule", {})
    if not isinstance(table, Mapping) or not isinstance(schedule, Mapping):
        raise UsageError("The recipe's [overrides] or [schedule] is no table.", code="bad_recipe")
    unknown = sorted(set(table) - set(_KEYS))
    if unknown:
        raise UsageError(f"The recipe's [overrides] has no use for '{unknown[0]}'.", code="bad_recipe")
    top = {key: value for key, value in table.items() if key != "epochs"}
    out = {key: value for key, value in document.items() if key != "overrides"} | top
    if "epochs" in table:
        out["schedule"] = {**schedule, "epochs": table["epochs"]}
    return out


def _assigned(line: str) -> tuple[str, str]:
    return line.split("=", 1)[0].strip(), line
