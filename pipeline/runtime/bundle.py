"""Opens a bundle of models: nothing is loaded that is not what its manifest says."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DeploymentError
from pipeline.manifest import FILE_NAME, BundleManifest, MemberEntry, Profile
from pipeline.runtime.opset import opset_of
from pipeline.taxonomy import LEAVES

SHIPPED = Path(__file__).resolve().parents[1] / "models" / "leukoflow-2"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle, and which of its profiles is in use."""

    folder: Path
    manifest: BundleManifest
    profile: Profile

    @property
    def name(self) -> str:
        """What results say that they were made with."""
        return f"{self.manifest.name} {self.manifest.version} {self.profile}"

    @property
    def digest(self) -> str:
        """Of what decides the results of the profile in use."""
        return self.manifest.digest_of(self.profile)

    @property
    def stride_px(self) -> int:
        """The step that suits every segmenter of the profile."""
        return self.manifest.stride_px(self.profile)

    def file_of(self, member: MemberEntry) -> Path:
        """Return the ONNX file of a network."""
        return self.folder / member.file


def load_bundle(folder: Path | None = None, profile: Profile = Profile.FAST) -> Bundle:
    """Return the bundle in `folder`, or the shipped one, with every file of every profile verified.

    Raises: DeploymentError: manifest missing or broken, a profile that it lacks, a file missing or with
    another digest, other classes than `taxonomy.LEAVES`, another opset than the manifest's.
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
    for member in (*manifest.segmenter.members, *manifest.classifier.members):
        _check_file(bundle.file_of(member), member.sha256, manifest.opset)
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


def _check_file(file: Path, sha256: str, opset: int) -> None:
    try:
        body = file.read_bytes()
    except OSError as error:
        raise DeploymentError(f"The model bundle lacks {file.name}.", code="bundle_incomplete") from error
    if hashlib.sha256(body).hexdigest() != sha256:
        raise DeploymentError(
            f"{file.name} of the model bundle is not the file that its manifest names: its sha256 differs.",
            code="bundle_digest",
        )
    found = opset_of(body)
    if found != opset:
        raise DeploymentError(
            f"{file.name} of the model bundle has opset {found}, its manifest says {opset}.",
            code="bundle_opset",
        )
