"""The manifest of a model bundle: what the networks take and give, what they were made from, what they reach.

A bundle is a folder with ONNX files and `manifest.json`. Every network takes `rgb`, uint8 (N, H, W, 3), and
gives `probabilities`, float32 after the softmax: a segmenter (N, 3, H, W), a classifier (N, leaves).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import cache
from math import lcm

from pydantic import BaseModel, ConfigDict, PositiveInt, TypeAdapter, ValidationError, with_config

from pipeline.bundle.int8_figures import Int8Entry, Precision, StoredGraph
from pipeline.bundle.manifest_errors import broken, first_complaint
from pipeline.bundle.manifest_types import FileName, Share
from pipeline.model.errors import DeploymentError
from pipeline.model.json_value import Json
from pipeline.model.spec import PipelineSpec

FILE_NAME = "manifest.json"
FORMAT = 2
INPUT_NAME = "rgb"
OUTPUT_NAME = "probabilities"


class Profile(StrEnum):
    """Which segmenters are asked; their probabilities are averaged. The classifiers are always all asked."""

    FAST = "fast"
    """the light one alone; every bundle has it"""
    ACCURATE = "accurate"


@dataclass(frozen=True, slots=True)
class MemberEntry:
    """One network of an ensemble: its file, and by digest the recipe and the weights that it was made of."""

    name: str
    file: FileName
    sha256: str
    parameters: int
    recipe_sha256: str
    """of the recipe's text"""
    weights_sha256: str
    """of the trained tensors, as `pipeline.training.fit.training_loop.weights_digest` counts it"""
    int8: Int8Entry | None = field(default=None, kw_only=True)
    """None where it was never tried"""

    def stored(self, precision: Precision) -> StoredGraph:
        """Return the file that is asked for this precision: that of FP32 where there is none of INT8."""
        if precision is Precision.INT8 and self.int8 is not None and self.int8.file and self.int8.sha256:
            return StoredGraph(self.int8.file, self.int8.sha256, Precision.INT8)
        return StoredGraph(self.file, self.sha256, Precision.FP32)

    def digests(self, precision: Precision) -> str:
        """Return the sha256 of each file that the graph is read from.

        An int8 graph reads its weights from the FP32 file, see `pipeline.training.export.weight_storage`.
        """
        return " ".join(dict.fromkeys((self.sha256, self.stored(precision).sha256)))


@dataclass(frozen=True, slots=True)
class SegmenterMember(MemberEntry):
    """One network that finds cells; heights and widths of a batch are multiples of `stride_px`."""

    stride_px: PositiveInt


@dataclass(frozen=True, slots=True)
class ProfileEntry:
    """The segmenters of one profile, by name, in the order in which they are asked."""

    profile: Profile
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SegmenterEntry:
    """The networks that find cells: all at `working_mpp_um`."""

    working_mpp_um: float
    members: tuple[SegmenterMember, ...]
    profiles: tuple[ProfileEntry, ...]


@dataclass(frozen=True, slots=True)
class ClassifierEntry:
    """The ensemble: every member takes the same square crop of `crop_px` at `crop_mpp_um`."""

    crop_px: int
    crop_mpp_um: float
    views: int
    """how many mirrored or turned views of a crop each graph averages; 1 is the crop alone"""
    members: tuple[MemberEntry, ...]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where on a call is accepted: see `PipelineSpec`; chosen on val for a stated risk."""

    accept_probability: Share
    leaf_probability: Share
    max_disagreement: Share
    risk: Share
    """share of wrong calls among those accepted, 0 to 1"""


@dataclass(frozen=True, slots=True)
class DataEntry:
    """One data set that the networks learnt from, by the split that it came with."""

    folder: str
    licence: str
    train_images: int
    val_images: int


@dataclass(frozen=True, slots=True)
class RecipeEntry:
    """A recipe that made a network: its name and the sha256 of its text."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A measurement on one data set's val split, such as (`bccd`, `nucleus_dice`, 0.93)."""

    data_set: str
    measure: str
    value: float


@dataclass(frozen=True, slots=True)
class Timing:
    """What a profile costs, such as (`fast`, `cpu_s_per_mpx`, 0.4); the measure names its unit."""

    profile: Profile
    measure: str
    value: float


@with_config(ConfigDict(strict=True, extra="forbid"))
@dataclass(frozen=True, slots=True)
class BundleManifest:
    """What `manifest.json` says. `parse` checks it; what is made in code is taken as it is."""

    format: int = field(default=FORMAT, kw_only=True)
    name: str
    version: str
    classes: tuple[str, ...]
    """the classifier's outputs in order: `taxonomy.LEAVES`"""
    opset: int
    segmenter: SegmenterEntry
    classifier: ClassifierEntry
    data_sets: tuple[DataEntry, ...]
    recipes: tuple[RecipeEntry, ...]
    thresholds: Thresholds | None
    """None: those of `PipelineSpec`"""
    figures: tuple[Figure, ...]
    timings: tuple[Timing, ...]
    trained_on: str
    """ISO date"""
    software: tuple[tuple[str, str], ...]
    """(package, version) that trained and exported"""

    def segmenters(self, profile: Profile) -> tuple[SegmenterMember, ...]:
        """Return the networks of a profile. Raises: DeploymentError, where the bundle lacks the profile."""
        by_name = {member.name: member for member in self.segmenter.members}
        for entry in self.segmenter.profiles:
            if entry.profile is profile:
                return tuple(by_name[name] for name in entry.members)
        known = ", ".join(entry.profile for entry in self.segmenter.profiles)
        raise DeploymentError(
            f"The model bundle {self.name} {self.version} has no profile '{profile}'; it has: {known}.",
            code="bundle_profile",
        )

    def profiles_of(self, member: MemberEntry) -> str:
        """Return the profiles that ask a network: `all` for a classifier, `none` where none does."""
        if member in self.classifier.members:
            return "all"
        asking = [entry.profile for entry in self.segmenter.profiles if member.name in entry.members]
        return ", ".join(asking) or "none"

    def stride_px(self, profile: Profile) -> int:
        """Return the step that suits every segmenter of a profile. Raises: as `segmenters`."""
        return lcm(*(member.stride_px for member in self.segmenters(profile)))

    def digest_of(self, profile: Profile, precision: Precision = Precision.FP32) -> str:
        """Hex sha256 over what decides a profile's results: classes, inputs, thresholds, the files asked.

        Raises: as `segmenters`.
        """
        identity: Json = {
            "classes": list(self.classes),
            "working_mpp_um": self.segmenter.working_mpp_um,
            "segmenters": [
                [member.digests(precision), member.stride_px] for member in self.segmenters(profile)
            ],
            "crop": [self.classifier.crop_px, self.classifier.crop_mpp_um],
            "classifiers": [member.digests(precision) for member in self.classifier.members],
            "thresholds": None if self.thresholds is None else {**asdict(self.thresholds)},
        }
        return _sha256(identity)

    @property
    def digest(self) -> str:
        """Hex sha256 over what decides the results of all profiles in every precision that there is."""
        whole: dict[str, Json] = {}
        for entry in self.segmenter.profiles:
            whole[entry.profile] = self.digest_of(entry.profile)
            int8 = self.digest_of(entry.profile, Precision.INT8)
            if int8 != whole[entry.profile]:
                whole[f"{entry.profile} {Precision.INT8}"] = int8
        return _sha256(whole)

    @property
    def members(self) -> tuple[MemberEntry, ...]:
        """Every network: segmenters, then classifiers."""
        return (*self.segmenter.members, *self.classifier.members)

    @property
    def spec(self) -> PipelineSpec:
        """The parameters of an analysis with this bundle."""
        spec = PipelineSpec(working_mpp_um=self.segmenter.working_mpp_um)
        if self.thresholds is None:
            return spec
        return replace(
            spec,
            accept_probability=self.thresholds.accept_probability,
            leaf_probability=self.thresholds.leaf_probability,
            max_disagreement=self.thresholds.max_disagreement,
        )

    def render(self) -> str:
        """Return the text of `manifest.json`."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def parse(cls, text: str) -> BundleManifest:
        """Return the manifest that `text` holds.

        Raises: DeploymentError, where it is not the manifest of a bundle.
        """
        try:
            found = _Head.model_validate_json(text).format
            if found != FORMAT:
                raise broken(
                    f"has format {found}; this version of leukoflow reads format {FORMAT}: export it anew"
                )
            manifest = _adapter().validate_json(text)
        except ValidationError as error:
            raise broken(first_complaint(error)) from error
        _check_segmenter(manifest.segmenter)
        _check_names(manifest.classifier.members, "classifier")
        _check_int8(manifest.members)
        return manifest


class _Head(BaseModel):
    """What tells whether the rest can be read."""

    model_config = ConfigDict(strict=True)

    format: int


@cache
def _adapter() -> TypeAdapter[BundleManifest]:
    return TypeAdapter(BundleManifest)


def _check_segmenter(entry: SegmenterEntry) -> None:
    _check_names(entry.members, "segmenter")
    named = [item.profile for item in entry.profiles]
    if Profile.FAST not in named or len(named) != len(set(named)):
        raise broken(f"does not name the profile '{Profile.FAST}', and each profile once")
    known = {member.name for member in entry.members}
    if not all(item.members and known.issuperset(item.members) for item in entry.profiles):
        raise broken("has a profile of segmenters that it does not list")


def _check_names(members: Sequence[MemberEntry], kind: str) -> None:
    if not members:
        raise broken(f"names no {kind}")
    if len({member.name for member in members}) < len(members):
        raise broken(f"names a {kind} twice")


def _check_int8(members: Sequence[MemberEntry]) -> None:
    if any(one.int8 and (one.int8.file is None) != (one.int8.sha256 is None) for one in members):
        raise broken("names an int8 file without its sha256")


def _sha256(identity: Json) -> str:
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
