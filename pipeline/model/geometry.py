"""Coordinate frames, rectangles and lengths, and all conversions between them.

There are three frames. The suffix of a variable names its frame:

- ``_px0``  level 0, the scan as the scanner stored it; origin top left, x to the right, y down;
- ``_lv``   the pyramid level that is read, in that level's pixels;
- ``_px``   the working frame: level 0 reduced by a rational factor, so that tiles of any size see the
  same pixels (`WorkingFrame`).

Points are (x, y); arrays are indexed [row, col].
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

EIGHTHS = 8
"""Working frames are reduced by k/8, so that tiles with an origin at a multiple of 8 start on a whole
pixel."""


@dataclass(frozen=True, slots=True)
class Mpp:
    """Micrometres per level-0 pixel; positive."""

    um_per_px0: float

    def __post_init__(self) -> None:
        if not 0.0 < self.um_per_px0 < 1e3:
            raise ValueError(f"micrometres per pixel out of range: {self.um_per_px0}")

    def to_um(self, length_px0: float) -> float:
        """Return the length in µm."""
        return length_px0 * self.um_per_px0

    def to_um2(self, area_px0: float) -> float:
        """Return the area in µm²."""
        return area_px0 * self.um_per_px0**2

    def to_px0(self, length_um: float) -> float:
        """Return the length in level-0 pixels."""
        return length_um / self.um_per_px0


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in whole pixels."""

    width: int
    height: int

    @property
    def area(self) -> int:
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class Rect:
    """A half-open rectangle of whole pixels: x ≤ column < x + width."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.x + self.width

    @property
    def bottom(self) -> int:
        return self.y + self.height

    @property
    def area(self) -> int:
        return max(0, self.width) * max(0, self.height)

    def contains(self, x: float, y: float) -> bool:
        """Return whether the point lies inside; adjacent rectangles share no point."""
        return self.x <= x < self.right and self.y <= y < self.bottom

    def grown(self, margin: int) -> Rect:
        """Return this rectangle with `margin` more pixels on each side."""
        return Rect(self.x - margin, self.y - margin, self.width + 2 * margin, self.height + 2 * margin)

    def intersection(self, other: Rect) -> Rect:
        """Return the intersection; its width or height is 0 if it is empty."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return Rect(x, y, max(0, right - x), max(0, bottom - y))

    def around(self, other: Rect) -> Rect:
        """Return the smallest rectangle that contains both."""
        x, y = min(self.x, other.x), min(self.y, other.y)
        return Rect(x, y, max(self.right, other.right) - x, max(self.bottom, other.bottom) - y)


@dataclass(frozen=True, slots=True)
class WorkingFrame:
    """The frame of the segmentation: level 0 reduced by ``px0_per_px``, a multiple of 1/8.

    Working pixel (0, 0) has its top-left corner at the top-left corner of level 0. A working pixel's centre
    (i + ½) lies at (i + ½)·px0_per_px in level 0.
    """

    px0_per_px: Fraction
    size_px: Size

    @classmethod
    def for_scan(cls, size_px0: Size, mpp: Mpp, working_mpp_um: float) -> WorkingFrame:
        """Return the frame nearest to `working_mpp_um` whose factor is a multiple of 1/8."""
        eighths = max(1, round(EIGHTHS * working_mpp_um / mpp.um_per_px0))
        factor = Fraction(eighths, EIGHTHS)
        return cls(factor, Size(_ceil(size_px0.width / factor), _ceil(size_px0.height / factor)))

    @property
    def scale(self) -> float:
        """Level-0 pixels per working pixel."""
        return float(self.px0_per_px)

    def to_px0(self, value_px: float) -> float:
        """Return an edge coordinate or a length of this frame in level-0 pixels."""
        return value_px * self.scale

    def rect_to_px0(self, rect_px: Rect) -> Rect:
        """Return the level-0 rectangle under `rect_px`, whose x, y, width, height are multiples of 8.

        Raises: ValueError, where an edge lies between two pixels.
        """
        edges = [edge * self.px0_per_px for edge in (rect_px.x, rect_px.y, rect_px.width, rect_px.height)]
        if any(edge.denominator != 1 for edge in edges):
            raise ValueError(f"{rect_px} does not lie on whole level-0 pixels")
        x, y, width, height = (int(edge) for edge in edges)
        return Rect(x, y, width, height)


def _ceil(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)
