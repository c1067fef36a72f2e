"""Recipes: TOML files that say all that a training depends on, parsed once into frozen records."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

from pipeline.model.errors import UsageError
from pipeline.networks.backbones import BackboneName
from pipeline.networks.colour_balance import CropColours
from pipeline.networks.picture_classifiers import PictureNetwork
from pipeline.training.data.augment import AugmentSpec
from pipeline.training.data.folds import Fold, fold_of
from pipeline.training.data.picture_augment import PictureAugment
from pipeline.training.data.picture_sets import PictureClass
from pipeline.training.data.sources import Source, source_of
from pipeline.training.recipe.architectures import SegmenterPlan, segmenter_plan
from pipeline.training.recipe.overrides import AS_WRITTEN, Overrides, applied, overridden
from pipeline.training.recipe.recipe_fields import Table, names_of, optional_names, record_of, value_of


class Optimizer(StrEnum):
    """Who moves the weights."""

    ADAMW = "adamw"
    ADAM = "adam"
    """with the ε of Keras, 1e-7"""


class LearningRateSchedule(StrEnum):
    """How the learning rate goes over the steps."""

    COSINE = "cosine"
    CONSTANT = "constant"


class Arithmetic(StrEnum):
    """What products are computed in while a network learns; weights, loss and validation stay in float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    """about twice as fast for wide convolutions where a processor has matrix units for it"""


class Kept(StrEnum):
    """The epoch whose weights stay."""

    BEST = "best"
    LAST = "last"


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to learn."""

    epochs: int
    samples_per_epoch: int
    """0 in recipes for pictures: every picture of the train split once"""
    batch: int
    learning_rate: float
    """of the pretrained part"""
    head_learning_rate: float
    """of what starts from nothing"""
    weight_decay: float
    warmup: float
    """part of all steps in which the rate rises; then it falls as a cosine"""
    ema_decay: float
    """of the averaged weights, which are what is validated and shipped; 0: the weights themselves"""
    patience: int
    """epochs without a better score, after which training stops"""
    freeze_norm: bool
    """keep the pretrained batch norms' statistics"""
    optimizer: Optimizer = Optimizer.ADAMW
    rate: LearningRateSchedule = LearningRateSchedule.COSINE
    clip_norm: float = 5.0
    """of all gradients together; 0: not clipped"""
    keep: Kept = Kept.BEST
    arithmetic: Arithmetic = Arithmetic.FLOAT32


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
class PictureInput:
    """What a network for whole pictures is shown: the picture, stretched to squares of `side_px`."""

    side_px: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """What every kind of recipe holds."""

    KIND: ClassVar[str]

    name: str
    seed: int
    text: str
    """of the file with its overrides: whoever trains from it gets the same again"""
    schedule: Schedule

    @property
    def digest(self) -> str:
        """Hex sha256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class CellRecipe(Recipe):
    """What recipes for networks that see cells at a known scale hold."""

    sources: tuple[Source, ...]
    """those left out are not among them"""
    input: InputSpec
    balance: Balance
    augment: AugmentSpec


@dataclass(frozen=True, slots=True)
class SegmenterRecipe(CellRecipe):
    """Makes one segmenter."""

    KIND: ClassVar[str] = "segmenter"

    network: SegmenterPlan
    student_epochs: int
    """0: no self-training; else the epochs of a student that learns what its teacher drew"""
    teacher: str | None
    """name and weights digest of another segmenter: cells without a mask are learnt as it draws them"""


@dataclass(frozen=True, slots=True)
class MemberPlan:
    """One network of an ensemble."""

    name: str
    backbone: BackboneName
    colours: CropColours
    """by what it balances its crops"""


@dataclass(frozen=True, slots=True)
class ClassifierRecipe(CellRecipe):
    """Makes the members of an ensemble, one after the other."""

    KIND: ClassVar[str] = "classifier"

    members: tuple[MemberPlan, ...]
    dropout: float
    label_smoothing: float
    early_epochs: int
    """so many epochs are learnt from crops of `early_side_px`, at a coarser scale and so faster"""
    early_side_px: int


@dataclass(frozen=True, slots=True)
class PictureRecipe(Recipe):
    """Makes classifiers of whole pictures with classes of their own; no bundle comes of them."""

    KIND: ClassVar[str] = "picture-classifier"

    folders: tuple[str, ...]
    """those left out are not among them"""
    classes: tuple[PictureClass, ...]
    """in the order of the logits"""
    members: tuple[PictureNetwork, ...]
    """their probabilities are averaged"""
    input: PictureInput
    augment: PictureAugment
    dropout: float
    """of transfer-learned members"""
    label_smoothing: float
    fold: Fold | None
    """instead of the split that the data came with"""


AnyRecipe = SegmenterRecipe | ClassifierRecipe | PictureRecipe


def read_recipe(recipe: str | Path, overrides: Overrides = AS_WRITTEN) -> AnyRecipe:
    """Return the recipe in a file, or the shipped one of that name, with what is changed of it.

    Raises: UsageError, where there is none or a value is missing, unknown or of the wrong type.
    """
    return parse_recipe(overridden(_text(recipe), overrides))


def parse_recipe(text: str) -> AnyRecipe:
    """Return the recipe that the TOML text holds. Raises: UsageError, as `read_recipe`."""
    try:
        document = applied(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"The recipe is no TOML: {error}.", code="bad_recipe") from error
    kind = document.get("kind")
    if kind == SegmenterRecipe.KIND:
        return _segmenter(document, text)
    if kind == ClassifierRecipe.KIND:
        return _classifier(document, text)
    if kind == PictureRecipe.KIND:
        return _picture_classifier(document, text)
    raise UsageError(
        "A recipe's kind is 'segmenter', 'classifier' or 'picture-classifier'.", code="bad_recipe"
    )


def _segmenter(document: Table, text: str) -> SegmenterRecipe:
    return SegmenterRecipe(
        **_every(document, text),  # type: ignore[arg-type]
        **_of_cells(document),  # type: ignore[arg-type]
        network=segmenter_plan(document),
        student_epochs=value_of({"student_epochs": 0, **document}, "student_epochs", int),
        teacher=value_of(document, "teacher", str) if "teacher" in document else None,
    )


def _classifier(document: Table, text: str) -> ClassifierRecipe:
    _refuse_teacher(document)
    return ClassifierRecipe(
        **_every(document, text),  # type: ignore[arg-type]
        **_of_cells(document),  # type: ignore[arg-type]
        members=_member_plans(document),
        dropout=value_of(document, "dropout", float),
        label_smoothing=value_of(document, "label_smoothing", float),
        early_epochs=value_of({"early_epochs": 0, **document}, "early_epochs", int),
        early_side_px=value_of({"early_side_px": 96, **document}, "early_side_px", int),
    )


def _picture_classifier(document: Table, text: str) -> PictureRecipe:
    _refuse_teacher(document)
    fold = value_of(document, "fold", str) if "fold" in document else None
    return PictureRecipe(
        **_every(document, text),  # type: ignore[arg-type]
        folders=_folders(document),
        classes=_classes(document),
        members=tuple(value_of({"members": name}, "members", PictureNetwork) for name in _members(document)),
        input=record_of(PictureInput, document, "input"),
        augment=record_of(PictureAugment, document, "augment"),
        dropout=value_of({"dropout": 0.0, **document}, "dropout", float),
        label_smoothing=value_of({"label_smoothing": 0.0, **document}, "label_smoothing", float),
        fold=fold_of(fold) if fold is not None else None,
    )


def _refuse_teacher(document: Table) -> None:
    if "teacher" in document:
        raise UsageError("Only a segmenter can learn from a teacher.", code="bad_recipe")


def _every(document: Table, text: str) -> Mapping[str, object]:
    schedule = record_of(Schedule, document, "schedule")
    if schedule.epochs < 1 or schedule.batch < 1:
        raise UsageError(
            "A recipe needs one epoch or more, and one sample or more a batch.", code="bad_recipe"
        )
    return {
        "name": value_of(document, "name", str),
        "seed": value_of(document, "seed", int),
        "text": text,
        "schedule": schedule,
    }


def _of_cells(document: Table) -> Mapping[str, object]:
    if "fold" in document:
        raise UsageError("Only recipes for whole pictures can be split into folds.", code="bad_recipe")
    return {
        "sources": tuple(source_of(folder) for folder in _folders(document)),
        "input": record_of(InputSpec, document, "input"),
        "balance": record_of(Balance, document, "balance"),
        "augment": record_of(AugmentSpec, document, "augment"),
    }


def _folders(document: Table) -> tuple[str, ...]:
    folders, left_out = names_of(document, "folders"), optional_names(document, "leave_out")
    strange = [name for name in left_out if name not in folders]
    if strange:
        raise UsageError(
            f"The recipe does not learn from '{strange[0]}', so it cannot be left out; "
            f"it learns from {', '.join(folders)}.",
            code="bad_recipe",
        )
    remaining = tuple(folder for folder in folders if folder not in left_out)
    if not remaining:
        raise UsageError("Every data set of the recipe is left out.", code="bad_recipe")
    return remaining


def _members(document: Table) -> tuple[str, ...]:
    members = names_of(document, "members")
    if len(set(members)) < len(members):
        raise UsageError("The recipe names a member twice.", code="bad_recipe")
    if not all(_FOLDER_NAME.fullmatch(name) for name in members):
        raise UsageError(
            "A recipe's members are named by small letters, digits and hyphens: they name folders.",
            code="bad_recipe",
        )
    return members


_FOLDER_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def _member_plans(document: Table) -> tuple[MemberPlan, ...]:
    """Return the members: the table [backbones] says what each is made of, where its name does not; the table
    [colours] how its crops are balanced, where that is not by their light."""
    names = _members(document)
    backbones = {name: name for name in names} | _by_member(document, "backbones", names)
    colours = dict.fromkeys(names, str(CropColours.LIGHT)) | _by_member(document, "colours", names)
    return tuple(
        MemberPlan(
            name,
            value_of({"members": backbones[name]}, "members", BackboneName),
            value_of({"colours": colours[name]}, "colours", CropColours),
        )
        for name in names
    )


def _by_member(document: Table, key: str, members: tuple[str, ...]) -> dict[str, object]:
    table = document.get(key, {})
    if not isinstance(table, dict):
        raise UsageError(f"The recipe's [{key}] is no table.", code="bad_recipe")
    strange = [name for name in table if name not in members]
    if strange:
        raise UsageError(f"The recipe's [{key}] names '{strange[0]}', which is no member.", code="bad_recipe")
    return dict(table)


def _classes(document: Table) -> tuple[PictureClass, ...]:
    table = document.get("classes")
    if not isinstance(table, dict) or len(table) < 2:
        raise UsageError("The recipe's [classes] names fewer than two classes.", code="bad_recipe")
    classes = tuple(PictureClass(str(name), names_of(table, name)) for name in table)
    labels = [label for one in classes for label in one.labels]
    if len(set(labels)) < len(labels):
        raise UsageError("The recipe's [classes] gives one label to two classes.", code="bad_recipe")
    return classes


def _text(recipe: str | Path) -> str:
    shipped = files("pipeline.training.recipe") / "shipped" / f"{recipe}.toml"
    try:
        if isinstance(recipe, str) and shipped.is_file():
            return shipped.read_text(encoding="utf-8")
        return Path(recipe).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"There is no recipe '{Path(recipe).name}'.", code="no_recipe") from error
