"""Opens a bundle of models: nothing is loaded that is not what its manifest says."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DeploymentError
from pipeline.manifest import FILE_NAME, BundleManifest
from pipeline.runtime.opset import opset_of
from pipeline.taxonomy import LEAVES

SHIPPED = Path(__file__).resolve().parents[1] / "models" / "leukoflow-1"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle."""

    folder: Path
    manifest: BundleManifest

    @property
    def segmenter_file(self) -> Path:
        return self.folder / self.manifest.segmenter.file

    @property
    def member_files(self) -> tuple[Path, ...]:
        """The classifiers, in the order of the manifest."""
        return tuple(self.folder / member.file for member in self.manifest.classifier.members)


def load_bundle(folder: Path | None = None) -> Bundle:
    """Return the bundle in `folder`, or the shipped one, with every file verified.

    Raises: DeploymentError: manifest missing or broken, a file missing or with another digest, other classes
    than `taxonomy.LEAVES`, another opset than the manifest's.
    """
    place = SHIPPED if folder is None else folder
    try:
        text = (place / FILE_NAME).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DeploymentError(f"There is no model bundle in {place}.", code="bundle_missing") from error
    bundle = Bundle(place, BundleManifest.parse(text))
    _check_classes(bundle.manifest)
    segmenter, members = bundle.manifest.segmenter, bundle.manifest.classifier.members
    _check_file(bundle.segmenter_file, segmenter.sha256, bundle.manifest.opset)
    for file, member in zip(bundle.member_files, members, strict=True):
        _check_file(file, member.sha256, bundle.manifest.opset)
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
