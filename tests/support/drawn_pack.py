"""A data pack of a few drawn cells, in the layout of the real one."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest

COLUMNS = (
    "path", "label", "split", "subject", "width", "height", "mask_path", "boxes_json", "diff5",
    "all_vs_normal", "group", "label_raw", "augmented", "notes",
)  # fmt: skip
SIDE = 120
MEMBER_TABLES = re.compile(r"^\[(backbones|colours)\]\n(\S.*\n)*", re.MULTILINE)
"""What a recipe says of members that a test leaves out."""


@dataclass
class DrawnPack:
    """Writes folders with `images/`, `masks/`, `labels.csv`."""

    root: Path
    rows: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def add(self, folder: str, label: str, split: str, **values: str) -> dict[str, str]:
        """Draw one cell and note its row."""
        rows = self.rows.setdefault(folder, [])
        name = f"{len(rows):03}"
        picture, mask = _drawn_cell(f"{folder}/{name}")
        (self.root / folder / "images").mkdir(parents=True, exist_ok=True)
        (self.root / folder / "masks").mkdir(exist_ok=True)
        cv2.imwrite(str(self.root / folder / "images" / f"{name}.png"), picture[:, :, ::-1])
        cv2.imwrite(str(self.root / folder / "masks" / f"{name}.png"), mask)
        row = dict.fromkeys(COLUMNS, "") | {
            "path": f"images/{name}.png", "label": label, "split": split, "width": str(SIDE),
            "height": str(SIDE), "group": f"g{name}", "label_raw": label,
        }  # fmt: skip
        rows.append(row | values)
        return rows[-1]

    def write(self) -> Path:
        """Write the tables; return the root."""
        for folder, rows in self.rows.items():
            with (self.root / folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)
        return self.root


def _drawn_cell(seed: str) -> tuple[np.ndarray, np.ndarray]:
    """No two alike: copies on two sides of a split are refused."""
    rng = np.random.default_rng(list(seed.encode()))
    picture = np.full((SIDE, SIDE, 3), (235, 220, 225), np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    centre = (SIDE // 2, SIDE // 2)
    cv2.circle(picture, centre, 36, (190, 170, 210), -1)
    cv2.circle(mask, centre, 36, 128, -1)
    cv2.circle(picture, centre, int(rng.integers(14, 24)), (90, 40, 130), -1)
    cv2.circle(mask, centre, 18, 255, -1)
    return np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8), mask


def boxes(*entries: tuple[str, float, float, float, float]) -> str:
    """Return `boxes_json` of (label, x, y, w, h)."""
    return json.dumps([dict(zip(("label", "x", "y", "w", "h"), entry, strict=True)) for entry in entries])


@pytest.fixture(scope="module")
def small_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a pack with masks, boxes and single cells on both sides of the split."""
    pack = DrawnPack(tmp_path_factory.mktemp("pack"))
    for split in ("train", "train", "val"):
        pack.add("zheng_d1_jtsc", "neutrophil", split, mask_path=f"masks/{_next(pack, 'zheng_d1_jtsc')}.png")
        pack.add("zheng_d1_jtsc", "lymphocyte", split, mask_path=f"masks/{_next(pack, 'zheng_d1_jtsc')}.png")
        pack.add("pbc_barcelona", "platelet", split)
        pack.add("pbc_barcelona", "immature_granulocyte", split)
        found = boxes(("WBC", 24, 24, 72, 72), ("RBC", 0, 0, 20, 20), ("Platelets", 100, 100, 10, 10))
        pack.add("pbc_barcelona", "basophil", split, boxes_json=found)
    return pack.write()


def _next(pack: DrawnPack, folder: str) -> str:
    return f"{len(pack.rows.get(folder, [])):03}"
