"""The slides and fields of the demonstration."""

from __future__ import annotations

from dataclasses import replace

from pipeline.geometry import Mpp, Size
from pipeline.synth.spec import EOSINOPHILIA, LEFT_SHIFT, LYMPHOCYTOSIS, NORMAL, SmearSpec

_SLIDE_PX0 = Size(3072, 3072)
_FIELD_PX0 = Size(640, 480)
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
    return tuple(
        SmearSpec(
            _FIELD_PX0,
            seed=1000 * seed + i,
            mpp=_FIELD_MPP,
            leukocytes=1 + i % 3,
            touching_fraction=0.0,
            red_cell_coverage=0.36,
        )
        for i in range(count)
    )
