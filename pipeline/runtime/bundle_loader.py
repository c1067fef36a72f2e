"""Opens a bundle of models: nothing is loaded that is not what its manifest says."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pipeline.bundle.int8_figures import Precision, StoredGraph
from pipeline.bundle.manifest import FILE_NAME, BundleManifest, MemberEntry, Profile
from pipeline.model.errors import DeploymentError
from pipeline.model.geometry import Size
from pipeline.model.taxonomy import LEAVES
from pipeline.runtime.engines.engine_port import GraphFile

SHIPPED = Path(__file__).resolve().parents[1] / "models" / "leukoflow-6"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle, and which of its profiles and precisions is in use."""

    folder: Path
    manifest: BundleManifest
    profile: Profile
    precision: Precision = Precision.FP32

    @property
    def name(self) -> str:
        """What results say that they were made with."""
        return f"{self.manifest.name} {self.manifest.version} {self.profile}"

    @property
    def digest(self) -> str:
        """Of what decides the results of the profile and the precision in use."""
        return self.manifest.digest_of(self.profile, self.precision)

    @property
    def stride_px(self) -> int:
        """The step that suits every segmenter of the profile."""
        return self.manifest.stride_px(self.profile)

    def file_of(self, member: MemberEntry) -> Path:
        """Return the ONNX file of a network as it was trained, in floats."""
        return self.folder / member.file

    @property
    def segmenter_graphs(self) -> tuple[GraphFile, ...]:
        """The graphs of the profile's segmenters, in the order in which they are asked."""
        return tuple(
            self._graph(member.stored(self.precision), None, member.stride_px)
            for member in self.manifest.segmenters(self.profile)
        )

    @property
    def classifier_graphs(self) -> tuple[GraphFile, ...]:
        """The graphs of the classifiers."""
        crop_px = Size(self.manifest.classifier.crop_px, self.manifest.classifier.crop_px)
        return tuple(
            self._graph(member.stored(self.precision), crop_px, 1)
            for member in self.manifest.classifier.members
        )

    def _graph(self, stored: StoredGraph, fixed_px: Size | None, stride_px: int) -> GraphFile:
        return GraphFile(self.folder / stored.file, stored.precision, fixed_px, stride_px)


def load_bundle(folder: Path | None = None, profile: Profile = Profile.FAST) -> Bundle:
    """Return the bundle in `folder`, or the shipped one, with every file of every profile verified.

    It is to be run in floats; `dataclasses.replace` its precision for what an engine asks else.

    Raises: DeploymentError: manifest missing or broken, a profile that it lacks, a file missing or with
    another digest, other classes than `taxonomy.LEAVES`.
    """
    place = SHIPPED if folder is None else folder
    try:
        text = (place / FILE_NAME).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DeploymentError(f"There is no model bundle in {place}.", code="bundle_missing") from error
    manifest = BundleManifest.parse(text)
    manifest.segmenters(profile)
    bundle = Bundle(place, manifest, profile)
    _check_classes(manifest)
    stored = {member.stored(precision) for member in manifest.members for precision in Precision}
    for graph in sorted(stored, key=lambda graph: graph.file):
        _check_file(place / graph.file, graph.sha256)
    return bundle


def _check_classes(manifest: BundleManifest) -> None:
    expected = tuple(leaf.value for leaf in LEAVES)
    if manifest.classes == expected:
        return
    if set(manifest.classes) == set(expected):
        difference = "in another order"
    else:
        names = sorted(set(manifest.classes) ^ set(expected))
        difference = f"other classes ({', '.join(names)})"
    raise DeploymentError(
        f"The model bundle {manifest.name} has {difference} than this version of leukoflow.",
        code="bundle_classes",
    )


def _check_file(file: Path, sha256: str) -> None:
    try:
        body = file.read_bytes()
    except OSError as error:
        raise DeploymentError(f"The model bundle lacks {file.name}.", code="bundle_incomplete") from error
    if hashlib.sha256(body).hexdigest() != sha256:
        raise DeploymentError(
            f"{file.name} of the model bundle is not the file that its manifest names: its sha256 differs.",
            code="bundle_digest",
        )
