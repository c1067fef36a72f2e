"""Recipes: TOML files that say all that a training depends on, parsed once into frozen records."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import ClassVar, TypeVar, get_type_hints

from pipeline.errors import UsageError
from pipeline.networks.backbones import BackboneName
from pipeline.training.augment import AugmentSpec
from pipeline.training.sources import Source, source_of

T = TypeVar("T")
Table = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to learn."""

    epochs: int
    samples_per_epoch: int
    batch: int
    learning_rate: float
    """of the pretrained part"""
    head_learning_rate: float
    """of what starts from nothing"""
    weight_decay: float
    warmup: float
    """part of all steps in which the rate rises; then it falls as a cosine"""
    ema_decay: float
    """of the averaged weights, which are what is validated and shipped"""
    patience: int
    """epochs without a better score, after which training stops"""
    freeze_norm: bool
    """keep the pretrained batch norms' statistics"""


@dataclass(frozen=True, slots=True)
class Balance:
    """How often each kind of sample is drawn: n to these powers."""

    class_power: float
    folder_power: float


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a network is shown: squares of `side_px` at `mpp_um`."""

    side_px: int
    mpp_um: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """What both kinds of recipe hold."""

    KIND: ClassVar[str]

    name: str
    seed: int
    text: str
    """of the file, as it was read"""
    sources: tuple[Source, ...]
    input: InputSpec
    balance: Balance
    augment: AugmentSpec
    schedule: Schedule

    @property
    def digest(self) -> str:
        """Hex sha256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class SegmenterRecipe(Recipe):
    """Makes one segmenter."""

    KIND: ClassVar[str] = "segmenter"

    encoder: BackboneName


@dataclass(frozen=True, slots=True)
class ClassifierRecipe(Recipe):
    """Makes the members of an ensemble, one after the other."""

    KIND: ClassVar[str] = "classifier"

    members: tuple[BackboneName, ...]
    dropout: float
    label_smoothing: float


def read_recipe(recipe: str | Path) -> SegmenterRecipe | ClassifierRecipe:
    """Return the recipe in a file, or the shipped one of that name.

    Raises: UsageError, where there is none or a value is missing, unknown or of the wrong type.
    """
    return parse_recipe(_text(recipe))


def parse_recipe(text: str) -> SegmenterRecipe | ClassifierRecipe:
    """Return the recipe that the TOML text holds. Raises: UsageError, as `read_recipe`."""
    try:
        document: Table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"The recipe is no TOML: {error}.", code="bad-recipe") from error
    kind = document.get("kind")
    shared = {
        "name": _value(document, "name", str),
        "seed": _value(document, "seed", int),
        "text": text,
        "sources": tuple(source_of(folder) for folder in _names(document, "folders")),
        "input": _record(InputSpec, document, "input"),
        "balance": _record(Balance, document, "balance"),
        "augment": _record(AugmentSpec, document, "augment"),
        "schedule": _record(Schedule, document, "schedule"),
    }
    if kind == SegmenterRecipe.KIND:
        return SegmenterRecipe(**shared, encoder=_backbone(_value(document, "encoder", str)))  # type: ignore[arg-type]
    if kind == ClassifierRecipe.KIND:
        return ClassifierRecipe(
            **shared,  # type: ignore[arg-type]
            members=tuple(_backbone(name) for name in _names(document, "members")),
            dropout=_value(document, "dropout", float),
            label_smoothing=_value(document, "label_smoothing", float),
        )
    raise UsageError("A recipe's kind is 'segmenter' or 'classifier'.", code="bad-recipe")


def _text(recipe: str | Path) -> str:
    shipped = files("pipeline.training") / "recipes" / f"{recipe}.toml"
    try:
        if isinstance(recipe, str) and shipped.is_file():
            return shipped.read_text(encoding="utf-8")
        return Path(recipe).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"There is no recipe '{Path(recipe).name}'.", code="no-recipe") from error


def _value(table: Table, key: str, wanted: type[T]) -> T:
    value = table.get(key)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise UsageError(f"The recipe's '{key}' is missing or no {wanted.__name__}.", code="bad-recipe")
    return value


def _names(table: Table, key: str) -> tuple[str, ...]:
    value = table.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise UsageError(f"The recipe's '{key}' is no list of names.", code="bad-recipe")
    return tuple(value)


def _record(cls: type[T], document: Table, key: str) -> T:
    table = document.get(key)
    if not isinstance(table, dict):
        raise UsageError(f"The recipe has no table [{key}].", code="bad-recipe")
    hints = get_type_hints(cls)
    names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    unknown = sorted(set(table) - set(names))
    if unknown:
        raise UsageError(f"The recipe's [{key}] has no use for '{unknown[0]}'.", code="bad-recipe")
    return cls(**{name: _value(table, name, hints[name]) for name in names})


def _backbone(name: str) -> BackboneName:
    try:
        return BackboneName(name)
    except ValueError as error:
        raise UsageError(
            f"'{name}' is no backbone; there are {', '.join(BackboneName)}.", code="bad-recipe"
        ) from error
