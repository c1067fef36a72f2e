"""The manifest of a model bundle: what the networks take and give, what they were made from, what they reach.

A bundle is a folder with ONNX files and `manifest.json`. Every network takes `rgb`, uint8 (N, H, W, 3), and
gives `probabilities`, float32 after the softmax: the segmenter (N, 3, H, W), a classifier (N, leaves).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TypeAlias

from pipeline.errors import DeploymentError

FILE_NAME = "manifest.json"
FORMAT = 1
INPUT_NAME = "rgb"
OUTPUT_NAME = "probabilities"

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


@dataclass(frozen=True, slots=True)
class SegmenterEntry:
    """The network that finds cells; heights and widths of a batch are multiples of `stride_px`."""

    file: str
    sha256: str
    stride_px: int
    working_mpp_um: float


@dataclass(frozen=True, slots=True)
class MemberEntry:
    """One classifier of the ensemble."""

    name: str
    file: str
    sha256: str
    parameters: int


@dataclass(frozen=True, slots=True)
class ClassifierEntry:
    """The ensemble: every member takes the same square crop of `crop_px` at `crop_mpp_um`."""

    crop_px: int
    crop_mpp_um: float
    members: tuple[MemberEntry, ...]


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
class BundleManifest:
    """What `manifest.json` says."""

    name: str
    version: str
    classes: tuple[str, ...]
    """the classifier's outputs in order: `taxonomy.LEAVES`"""
    opset: int
    segmenter: SegmenterEntry
    classifier: ClassifierEntry
    data_sets: tuple[DataEntry, ...]
    recipes: tuple[RecipeEntry, ...]
    figures: tuple[Figure, ...]
    trained_on: str
    """ISO date"""
    software: tuple[tuple[str, str], ...]
    """(package, version) that trained and exported"""

    @property
    def digest(self) -> str:
        """Hex sha256 over what decides results: classes, networks with their file digests, their inputs."""
        identity: Json = {
            "classes": list(self.classes),
            "segmenter": _plain(asdict(self.segmenter)),
            "classifier": _plain(asdict(self.classifier)),
        }
        canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def render(self) -> str:
        """Return the text of `manifest.json`."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def parse(cls, text: str) -> BundleManifest:
        """Return the manifest that `text` holds.

        Raises: DeploymentError, where it is not the manifest of a bundle.
        """
        try:
            document = _Fields("manifest", json.loads(text))
        except ValueError as error:
            raise _broken("is not JSON") from error
        if document.whole("format") != FORMAT:
            raise _broken(f"has a format other than {FORMAT}")
        return cls(
            name=document.text("name"),
            version=document.text("version"),
            classes=tuple(_text(item) for item in document.items("classes")),
            opset=document.whole("opset"),
            segmenter=_segmenter(document.fields("segmenter")),
            classifier=_classifier(document.fields("classifier")),
            data_sets=tuple(_data_set(entry) for entry in document.entries("data_sets")),
            recipes=tuple(
                RecipeEntry(entry.text("name"), entry.text("sha256")) for entry in document.entries("recipes")
            ),
            figures=tuple(
                Figure(entry.text("data_set"), entry.text("measure"), entry.number("value"))
                for entry in document.entries("figures")
            ),
            trained_on=document.text("trained_on"),
            software=tuple(_pair(item) for item in document.items("software")),
        )


class _Fields:
    """Reads typed values from one JSON object, or says which is missing."""

    def __init__(self, name: str, value: Json) -> None:
        if not isinstance(value, dict):
            raise _broken(f"has no object as {name}")
        self._name = name
        self._values: Mapping[str, Json] = value

    def _get(self, key: str) -> Json:
        if key not in self._values:
            raise _broken(f"has no {key} in {self._name}")
        return self._values[key]

    def text(self, key: str) -> str:
        return _text(self._get(key))

    def whole(self, key: str) -> int:
        value = self._get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise _broken(f"has no whole number as {key}")
        return value

    def number(self, key: str) -> float:
        value = self._get(key)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise _broken(f"has no number as {key}")
        return float(value)

    def items(self, key: str) -> list[Json]:
        value = self._get(key)
        if not isinstance(value, list):
            raise _broken(f"has no list as {key}")
        return value

    def fields(self, key: str) -> _Fields:
        return _Fields(key, self._get(key))

    def entries(self, key: str) -> list[_Fields]:
        return [_Fields(key, item) for item in self.items(key)]


def _segmenter(entry: _Fields) -> SegmenterEntry:
    return SegmenterEntry(
        file=_file_name(entry.text("file")),
        sha256=entry.text("sha256"),
        stride_px=entry.whole("stride_px"),
        working_mpp_um=entry.number("working_mpp_um"),
    )


def _classifier(entry: _Fields) -> ClassifierEntry:
    members = tuple(
        MemberEntry(
            name=member.text("name"),
            file=_file_name(member.text("file")),
            sha256=member.text("sha256"),
            parameters=member.whole("parameters"),
        )
        for member in entry.entries("members")
    )
    if not members:
        raise _broken("names no classifier")
    return ClassifierEntry(entry.whole("crop_px"), entry.number("crop_mpp_um"), members)


def _data_set(entry: _Fields) -> DataEntry:
    return DataEntry(
        folder=entry.text("folder"),
        licence=entry.text("licence"),
        train_images=entry.whole("train_images"),
        val_images=entry.whole("val_images"),
    )


def _pair(item: Json) -> tuple[str, str]:
    if not isinstance(item, list) or len(item) != 2:
        raise _broken("has no pair of names in software")
    return _text(item[0]), _text(item[1])


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise _broken("has no text where one belongs")
    return value


def _file_name(value: str) -> str:
    if not value or "/" in value or "\\" in value or value.startswith("."):
        raise _broken("names a file outside its own folder")
    return value


def _plain(value: Mapping[str, object]) -> Json:
    plain: Json = json.loads(json.dumps(value))
    return plain


def _broken(what: str) -> DeploymentError:
    return DeploymentError(f"The manifest of the model bundle {what}.", code="bundle-manifest")
