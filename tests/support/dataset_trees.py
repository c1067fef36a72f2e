"""Small trees in the layouts as published, with pictures of a few pixels, each unlike the others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from pipeline.training.data.datasets.aml_lmu import LABEL_OF_CODE

SIDE = 12


def draw(path: Path, seed: str | None = None) -> Path:
    """Write a picture whose pixels follow from `seed`, or from the path's last three names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = seed or "/".join(path.parts[-3:])
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]))
    assert cv2.imwrite(str(path), rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8))
    return path


def aml_tree(root: Path, numbers: Iterable[int] = range(1, 45), annotations: str | None = None) -> Path:
    """Write `AML-Cytomorphology_LMU` in `root`; return its folder."""
    folder = root / "AML-Cytomorphology_LMU"
    for code in LABEL_OF_CODE:
        for number in numbers:
            draw(folder / code / f"{code}_{number:04}.tiff")
    if annotations is not None:
        (folder / "annotations.dat").write_text(annotations)
    return folder


def cnmc_tree(root: Path, subjects: int = 3) -> Path:
    """Write three folds of `subjects` subjects a class, two cells each; return `root`."""
    for fold in range(3):
        for subject in range(1 + fold * subjects, 1 + (fold + 1) * subjects):
            for cell in (1, 2):
                training = root / "C-NMC_training_data" / f"fold_{fold}"
                draw(training / "all" / f"UID_{subject}_7_{cell}_all.bmp")
                draw(training / "hem" / f"UID_H{subject}_7_{cell}_hem.bmp")
    return root


def preliminary(root: Path, *lines: str) -> None:
    """Write the preliminary test set: a picture for each line `Patient_ID,new_names,labels`."""
    (root / "C-NMC_test_prelim_phase_data_labels.csv").write_text(
        "\n".join(("Patient_ID,new_names,labels", *lines)) + "\n"
    )
    for line in lines:
        draw(root / "C-NMC_test_prelim_phase_data" / line.split(",")[1])


def class_tree(root: Path, names: dict[str, Iterable[str]]) -> Path:
    """Write `<root>/<class>/<name>`; return `root`."""
    for label, pictures in names.items():
        for picture in pictures:
            draw(root / label / picture)
    return root
