"""The slides and fields of the demonstration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.model.geometry import Mpp, Size
from pipeline.synth.smear_spec import (
    DRAWN_CLASSES,
    EOSINOPHILIA,
    LEFT_SHIFT,
    LYMPHOCYTOSIS,
    NORMAL,
    SmearSpec,
)

_SLIDE_PX0 = Size(3072, 3072)
_FIELD_PX0 = Size(640, 480)
_FIELD_SHARES = (0.38, 0.12, 0.24, 0.12, 0.09, 0.05)
"""of `DRAWN_CLASSES`"""
_FIELD_MPP = Mpp(0.10)
"""100× oil immersion"""


def demo_slides(seed: int) -> tuple[SmearSpec, ...]:
    """Return five slides: ordinary, left shift, eosinophilia, lymphocytosis, too few cells to count."""
    ordinary = SmearSpec(_SLIDE_PX0, seed=5 * seed, leukocytes=130, mix=NORMAL)
    return (
        ordinary,
        replace(ordinary, seed=5 * seed + 1, leukocytes=150, mix=LEFT_SHIFT, touching_fraction=0.15),
        replace(ordinary, seed=5 * seed + 2, leukocytes=120, mix=EOSINOPHILIA),
        replace(ordinary, seed=5 * seed + 3, leukocytes=150, mix=LYMPHOCYTOSIS, glass_margin_um=60.0),
        replace(
            ordinary, seed=5 * seed + 4, size_px0=Size(2048, 2048), leukocytes=24, red_cell_coverage=0.30
        ),
    )


def field_specs(seed: int, count: int) -> tuple[SmearSpec, ...]:
    """Return `count` fields of one to three leukocytes, as a camera on a 100× objective takes them."""
    rng = np.random.default_rng((seed, 12))
    return tuple(_field(1000 * seed + i, 1 + i % 3, rng) for i in range(count))


def _field(seed: int, leukocytes: int, rng: np.random.Generator) -> SmearSpec:
    """Return one field.

    Classes are drawn at random here: by share, a field of one cell would always be the largest.
    """
    drawn = rng.choice(len(DRAWN_CLASSES), leukocytes, p=_FIELD_SHARES)
    return SmearSpec(
        _FIELD_PX0,
        seed=seed,
        mpp=_FIELD_MPP,
        leukocytes=leukocytes,
        mix=tuple((DRAWN_CLASSES[k], 1.0) for k in drawn),
        touching_fraction=0.0,
        red_cell_coverage=0.36,
    )
