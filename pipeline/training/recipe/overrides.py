"""What the command line changes of a recipe; it becomes part of the recipe's text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from pipeline.training.recipe.recipe_errors import bad_recipe

_KEYS = ("seed", "epochs", "folders", "leave_out", "fold", "teacher")


@dataclass(frozen=True, slots=True)
class Teacher:
    """A trained segmenter that another one learns from."""

    name: str
    weights_sha256: str
    run_dir: Path
    """the folder of its training run; not part of the recipe, since it does not affect the result"""

    @property
    def identity(self) -> str:
        """Name and digest of the weights, as the recipe's text holds them."""
        return f"{self.name} {self.weights_sha256}"


@dataclass(frozen=True, slots=True)
class Overrides:
    """Values that replace the recipe's; None or empty keeps the recipe's value."""

    seed: int | None = None
    epochs: int | None = None
    folders: tuple[str, ...] = ()
    """train on these data sets instead"""
    leave_out: tuple[str, ...] = ()
    """train without these data sets"""
    fold: str | None = None
    """'2/5': the second of five parts, in whole groups, is val"""
    teacher: Teacher | None = None
    """train on its pseudo-labels as well"""

    def values(self) -> dict[str, int | str | list[str]]:
        """Return each value that is set, by its key in the recipe's table [overrides]."""
        values: dict[str, int | str | list[str] | None] = {
            "seed": self.seed,
            "epochs": self.epochs,
            "folders": list(self.folders) or None,
            "leave_out": list(self.leave_out) or None,
            "fold": self.fold,
            "teacher": None if self.teacher is None else self.teacher.identity,
        }
        return {key: value for key, value in values.items() if value is not None}


NO_OVERRIDES = Overrides()


def overridden(text: str, overrides: Overrides) -> str:
    """Return the recipe's text with the overrides in its table [overrides]; without any, the text itself.

    Overrides already in the text are kept, unless a new one replaces them.
    Raises: UsageError, where the text is no TOML.
    """
    values = overrides.values()
    if not values:
        return text
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:
        raise bad_recipe(f"The recipe is no TOML: {error}.") from error
    table = document.setdefault("overrides", tomlkit.table())
    if not isinstance(table, dict):
        raise bad_recipe("The recipe's [overrides] is no table.")
    table.update(values)
    return tomlkit.dumps(document)


def applied(document: Mapping[str, object]) -> dict[str, object]:
    """Return the document with its table [overrides] laid over the rest.

    Raises: UsageError, for an override that does not exist.
    """
    recipe = dict(document)
    table, schedule = recipe.pop("overrides", {}), recipe.get("schedule", {})
    if not isinstance(table, dict) or not isinstance(schedule, dict):
        raise bad_recipe("The recipe's [overrides] or [schedule] is no table.")
    unknown = sorted(set(table) - set(_KEYS))
    if unknown:
        raise bad_recipe(f"The recipe's [overrides] has no use for '{unknown[0]}'.")
    if "epochs" in table:
        recipe["schedule"] = {**schedule, "epochs": table["epochs"]}
    return recipe | {key: value for key, value in table.items() if key != "epochs"}
