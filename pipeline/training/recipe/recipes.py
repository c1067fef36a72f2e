"""Recipes: TOML files with everything that a training run depends on, parsed once into frozen records."""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import to_json

from pipeline.model.errors import UsageError
from pipeline.networks.backbones import BackboneName
from pipeline.networks.colour_balance import CropColours
from pipeline.networks.picture_classifiers import PictureNetwork
from pipeline.training.data.augment import AugmentSpec
from pipeline.training.data.folds import Fold, fold_of
from pipeline.training.data.picture_augment import PictureAugment
from pipeline.training.data.picture_sets import PictureClass
from pipeline.training.data.sources import Source, source_of
from pipeline.training.recipe.architectures import SegmenterPlan, network_nested
from pipeline.training.recipe.overrides import NO_OVERRIDES, Overrides, applied, overridden
from pipeline.training.recipe.recipe_errors import bad_recipe, invalid_recipe

Names = Annotated[tuple[str, ...], Field(min_length=1)]
_FOLDER_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class Optimizer(StrEnum):
    """The optimiser of the weights."""

    ADAMW = "adamw"
    ADAM = "adam"
    """with the ε of Keras, 1e-7"""


class LearningRateSchedule(StrEnum):
    """The learning rate after the warm-up."""

    COSINE = "cosine"
    CONSTANT = "constant"


class Arithmetic(StrEnum):
    """Precision of products in training; weights, loss and validation stay in float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    """about twice as fast for wide convolutions, on processors with matrix units for it"""


class Kept(StrEnum):
    """The epoch whose weights are kept."""

    BEST = "best"
    LAST = "last"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Length and optimisation of a training run."""

    epochs: int
    samples_per_epoch: int
    """0 in recipes for whole pictures: every picture of the train split once"""
    batch: int
    learning_rate: float
    """of the pretrained part"""
    head_learning_rate: float
    """of the randomly initialised part"""
    weight_decay: float
    warmup: float
    """share of all steps in which the learning rate rises"""
    ema_decay: float
    """of the moving average of the weights, which is validated and shipped; 0: no averaging"""
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
    """Sampling rates: those of classes, and of data sets in a class, are their sizes to these powers."""

    class_power: float
    folder_power: float


@dataclass(frozen=True, slots=True)
class InputSpec:
    """A network's input: squares of `side_px` at `mpp_um`."""

    side_px: int
    mpp_um: float


@dataclass(frozen=True, slots=True)
class PictureInput:
    """The input of a network for whole pictures: the picture, stretched to a square of `side_px`."""

    side_px: int


class Recipe(BaseModel):
    """What all kinds of recipes have in common; fields are named as in the TOML."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: str
    seed: int
    text: str
    """the TOML, with the overrides; training from it gives the same weights again"""
    schedule: Schedule
    listed_folders: Names = Field(alias="folders")
    leave_out: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Hex sha256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def folders(self) -> tuple[str, ...]:
        """The data sets, without those left out."""
        return tuple(folder for folder in self.listed_folders if folder not in self.leave_out)

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if self.schedule.epochs < 1 or self.schedule.batch < 1:
            raise bad_recipe("A recipe needs one epoch or more, and one sample or more a batch.")
        return self

    @model_validator(mode="after")
    def _check_folders(self) -> Self:
        unlisted = [name for name in self.leave_out if name not in self.listed_folders]
        if unlisted:
            raise bad_recipe(
                f"The recipe does not learn from '{unlisted[0]}', so it cannot be left out; "
                f"it learns from {', '.join(self.listed_folders)}."
            )
        if not self.folders:
            raise bad_recipe("Every data set of the recipe is left out.")
        return self


class CellRecipe(Recipe):
    """What recipes for networks on cells at a known scale have in common."""

    input: InputSpec
    balance: Balance
    augment: AugmentSpec

    @property
    def sources(self) -> tuple[Source, ...]:
        """The data sets, without those left out."""
        return tuple(source_of(folder) for folder in self.folders)

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        for folder in self.folders:
            source_of(folder)
        return self


class SegmenterRecipe(CellRecipe):
    """A recipe for one segmenter."""

    kind: Literal["segmenter"]
    network: Annotated[SegmenterPlan, Field(discriminator="architecture")]
    student_epochs: int = 0
    """0: no self-training; else the epochs of a student trained on its teacher's pseudo-labels"""
    teacher: str | None = None
    """name and weights digest of another segmenter, which provides pseudo-labels"""


@dataclass(frozen=True, slots=True)
class MemberPlan:
    """One network of an ensemble."""

    name: str
    backbone: BackboneName
    colours: CropColours
    """how it balances the colours of its crops"""


class ClassifierRecipe(CellRecipe):
    """A recipe for the members of an ensemble."""

    kind: Literal["classifier"]
    member_names: Names = Field(alias="members")
    backbones: dict[str, BackboneName] = {}
    """of the members that are not named after their backbone"""
    colours: dict[str, CropColours] = {}
    """of the members that do not balance colours by light"""
    dropout: float
    label_smoothing: float
    early_epochs: int = 0
    """this many epochs use crops of `early_side_px`, at a coarser scale, which is faster"""
    early_side_px: int = 96

    @property
    def members(self) -> tuple[MemberPlan, ...]:
        """The networks, in the order in which they are trained."""
        return tuple(
            MemberPlan(name, self._backbone(name), self.colours.get(name, CropColours.LIGHT))
            for name in self.member_names
        )

    def _backbone(self, name: str) -> BackboneName:
        try:
            return self.backbones.get(name) or BackboneName(name)
        except ValueError as error:
            raise bad_recipe(
                f"'{name}' is not one of the backbones {', '.join(BackboneName)}; set it in [backbones]."
            ) from error

    @model_validator(mode="after")
    def _check_members(self) -> Self:
        if len(set(self.member_names)) < len(self.member_names):
            raise bad_recipe("The recipe names a member twice.")
        if not all(_FOLDER_NAME.fullmatch(name) for name in self.member_names):
            raise bad_recipe(
                "A recipe's members are named by small letters, digits and hyphens: they name folders."
            )
        for key, table in (("backbones", self.backbones), ("colours", self.colours)):
            unknown = [name for name in table if name not in self.member_names]
            if unknown:
                raise bad_recipe(f"The recipe's [{key}] names '{unknown[0]}', which is no member.")
        for name in self.member_names:
            self._backbone(name)
        return self


class PictureRecipe(Recipe):
    """A recipe for classifiers of whole pictures with their own classes; no bundle contains them."""

    kind: Literal["picture-classifier"]
    class_labels: Annotated[dict[str, Names], Field(alias="classes", min_length=2)]
    members: Annotated[tuple[PictureNetwork, ...], Field(min_length=1)]
    """their probabilities are averaged"""
    input: PictureInput
    augment: PictureAugment
    dropout: float = 0.0
    """of transfer-learned members"""
    label_smoothing: float = 0.0
    fold_text: str | None = Field(alias="fold", default=None)

    @property
    def classes(self) -> tuple[PictureClass, ...]:
        """In the order of the logits."""
        return tuple(PictureClass(name, labels) for name, labels in self.class_labels.items())

    @property
    def fold(self) -> Fold | None:
        """Replaces the split that the data came with."""
        return None if self.fold_text is None else fold_of(self.fold_text)

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        labels = [label for one in self.classes for label in one.labels]
        if len(set(labels)) < len(labels):
            raise bad_recipe("The recipe's [classes] gives one label to two classes.")
        if len(set(self.members)) < len(self.members):
            raise bad_recipe("The recipe names a member twice.")
        if self.fold_text is not None:
            fold_of(self.fold_text)
        return self


AnyRecipe = SegmenterRecipe | ClassifierRecipe | PictureRecipe
_RECIPE: TypeAdapter[AnyRecipe] = TypeAdapter(Annotated[AnyRecipe, Field(discriminator="kind")])


def read_recipe(recipe: str | Path, overrides: Overrides = NO_OVERRIDES) -> AnyRecipe:
    """Return the recipe in a file, or the shipped one of that name, with the overrides applied.

    Raises: UsageError, where there is none or a value is missing, unknown or of the wrong type.
    """
    return parse_recipe(overridden(_text(recipe), overrides))


def parse_recipe(text: str) -> AnyRecipe:
    """Return the recipe that the TOML text holds. Raises: UsageError, as `read_recipe`."""
    try:
        document = applied(tomllib.loads(text))
        # By way of JSON: strict validation of Python values would refuse lists as tuples, strings as enums.
        return _RECIPE.validate_json(to_json({**network_nested(document), "text": text}))
    except tomllib.TOMLDecodeError as error:
        raise bad_recipe(f"The recipe is no TOML: {error}.") from error
    except ValidationError as error:
        raise invalid_recipe(error) from error


def _text(recipe: str | Path) -> str:
    shipped = files("pipeline.training.recipe") / "shipped" / f"{recipe}.toml"
    try:
        if isinstance(recipe, str) and shipped.is_file():
            return shipped.read_text(encoding="utf-8")
        return Path(recipe).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"There is no recipe '{Path(recipe).name}'.", code="no_recipe") from error
