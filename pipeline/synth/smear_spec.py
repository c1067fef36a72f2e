"""The parameters of a synthetic smear: size, scale, leukocytes and seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from pipeline.model.geometry import Mpp, Size
from pipeline.model.taxonomy import CellClass

Mix: TypeAlias = tuple[tuple[CellClass, float], ...]
"""Classes with their shares; the shares need not sum to 1."""

DRAWN_CLASSES: tuple[CellClass, ...] = (
    CellClass.NEUTROPHIL_SEGMENTED,
    CellClass.NEUTROPHIL_BAND,
    CellClass.LYMPHOCYTE,
    CellClass.MONOCYTE,
    CellClass.EOSINOPHIL,
    CellClass.BASOPHIL,
)

_ORDINARY_MPP = Mpp(0.25)
"""a 40× scanner"""
FINEST_UM_PER_PX0, COARSEST_UM_PER_PX0 = 0.05, 1.0


def mix_of(segmented: float, band: float, lymph: float, mono: float, eosin: float, baso: float) -> Mix:
    """Return a mix from its shares, in the order of `DRAWN_CLASSES`."""
    return tuple(zip(DRAWN_CLASSES, (segmented, band, lymph, mono, eosin, baso), strict=True))


# Source of the four: reference intervals and typical findings in Bain, Blood Cells, 6th ed., ch. 5, 6, 8.
NORMAL = mix_of(56, 3, 30, 7, 3, 1)
LEFT_SHIFT = mix_of(55, 24, 12, 6, 2, 1)
EOSINOPHILIA = mix_of(40, 2, 22, 6, 28, 2)
LYMPHOCYTOSIS = mix_of(18, 1, 72, 6, 2, 1)
EVEN = mix_of(1, 1, 1, 1, 1, 1)


@dataclass(frozen=True, slots=True)
class SmearSpec:
    """All parameters of a smear: same spec, same pixels.

    Raises: ValueError, for impossible values.
    """

    size_px0: Size
    seed: int
    mpp: Mpp = _ORDINARY_MPP
    leukocytes: int = 60
    """the exact number"""
    mix: Mix = NORMAL
    touching_fraction: float = 0.1
    """share of the leukocytes that are in touching pairs"""
    red_cell_coverage: float = 0.42
    """share of the area covered by red cells: 0.4 in a monolayer, 0.8 in the thick part"""
    platelets_per_red_cell: float = 0.05
    """Source: Bain: 150 to 400 ·10⁹/l platelets to 4 to 6 ·10¹²/l red cells, 1 to 10–40"""
    glass_margin_um: float = 0.0
    """width of the empty glass around the smear"""

    def __post_init__(self) -> None:
        if min(self.size_px0.width, self.size_px0.height) < 1:
            raise ValueError(f"a smear needs pixels: {self.size_px0}")
        if not FINEST_UM_PER_PX0 <= self.mpp.um_per_px0 <= COARSEST_UM_PER_PX0:
            raise ValueError(f"smears are drawn at {FINEST_UM_PER_PX0} to {COARSEST_UM_PER_PX0} µm per pixel")
        if (
            self.seed < 0
            or self.leukocytes < 0
            or self.glass_margin_um < 0
            or self.platelets_per_red_cell < 0
        ):
            raise ValueError("seed, leukocytes, platelets and margin cannot be negative")
        if not 0 <= self.touching_fraction <= 1 or not 0 <= self.red_cell_coverage <= 1:
            raise ValueError("fractions lie between 0 and 1")
        _checked(self.mix)


def _checked(mix: Mix) -> None:
    if any(cell_class not in DRAWN_CLASSES for cell_class, _ in mix):
        raise ValueError("only " + ", ".join(DRAWN_CLASSES) + " can be drawn")
    if any(share < 0 for _, share in mix) or sum(share for _, share in mix) <= 0:
        raise ValueError("shares of a mix cannot be negative, and one has to be above 0")


def apportion(mix: Mix, count: int) -> tuple[tuple[CellClass, int], ...]:
    """Return whole numbers that sum to `count`, nearest to the shares (largest remainder, then order)."""
    total = sum(share for _, share in mix)
    exact = [count * share / total for _, share in mix]
    whole = [int(value) for value in exact]
    by_remainder = sorted(range(len(mix)), key=lambda i: whole[i] - exact[i])
    for i in by_remainder[: count - sum(whole)]:
        whole[i] += 1
    return tuple((cell_class, number) for (cell_class, _), number in zip(mix, whole, strict=True))
