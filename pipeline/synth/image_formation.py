"""Image formation by lamp, optics and camera: converts transmittance to grey levels by position."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.model.domain import Rgb
from pipeline.synth.smear_spec import SmearSpec
from pipeline.synth.stain import Field, Stain
from pipeline.synth.texture import soften

_NOISE_PX = 1024
_WAVES = 6
_UNSHARP = 2.0
"""width of the unsharp mask relative to the blur"""


class ImageFormation:
    """The image formation of one smear."""

    def __init__(self, spec: SmearSpec, stain: Stain) -> None:
        rng = np.random.default_rng((spec.seed, 10))
        self._seed = spec.seed
        self._stain = stain
        self._blur_px0 = spec.mpp.to_px0(stain.blur_um)
        self._centre = np.array([spec.size_px0.width, spec.size_px0.height]) / 2
        self._reach = float(np.hypot(*self._centre))
        self._slope = rng.uniform(-0.02, 0.02, 2)
        lengths_px0 = spec.mpp.to_px0(1) * rng.uniform(25, 400, _WAVES)
        turn = rng.uniform(0, 2 * np.pi, _WAVES)
        self._waves = 2 * np.pi / lengths_px0 * np.stack([np.cos(turn), np.sin(turn)])
        self._phases = rng.uniform(0, 2 * np.pi, _WAVES)
        noise = rng.standard_normal((_NOISE_PX, _NOISE_PX, 3), np.float32)
        self._noise = noise * np.float32(stain.noise)

    @property
    def margin_px0(self) -> int:
        """Margin around a block on which its pixels depend."""
        return int(np.ceil(4 * _UNSHARP * self._blur_px0)) + 2

    def expose(self, passed: Field, column: int, row: int) -> Rgb:
        """Return the block's pixels from the transmittance of the block grown by `margin_px0`."""
        margin = self.margin_px0
        blurred = soften(passed, self._blur_px0)
        crispness = np.float32(self._stain.sharpening)
        sharp = blurred + crispness * (blurred - soften(blurred, _UNSHARP * self._blur_px0))
        sharp = sharp[margin:-margin, margin:-margin]
        height, width = sharp.shape[:2]
        x, y = column * width + np.arange(width) + 0.5, row * height + np.arange(height) + 0.5
        exposed = sharp * self._illumination(x, y)[..., None] * self._stain.glass
        exposed += self._camera(height, width, column, row)
        return np.asarray(cv2.convertScaleAbs(np.clip(exposed, 0, 255)), np.uint8)

    def _illumination(self, x: np.ndarray, y: np.ndarray) -> Field:
        """Return vignette, slope and a slight unevenness of the plasma, from terms separable in x and y."""
        u, v = (x - self._centre[0]) / self._reach, (y - self._centre[1]) / self._reach
        across = 1 - self._stain.vignette * u**2 + self._slope[0] * u
        down = -self._stain.vignette * v**2 + self._slope[1] * v
        phase_x = np.outer(x, self._waves[0])
        phase_y = np.outer(y, self._waves[1]) + self._phases
        waves = np.sin(phase_y) @ np.cos(phase_x).T + np.cos(phase_y) @ np.sin(phase_x).T
        return np.asarray(across[None, :] + down[:, None] + 0.0025 * waves, np.float32)

    def _camera(self, height: int, width: int, column: int, row: int) -> Field:
        rng = np.random.default_rng((self._seed, 11, column, row))
        y, x = rng.integers(0, _NOISE_PX - height + 1), rng.integers(0, _NOISE_PX - width + 1)
        return self._noise[y : y + height, x : x + width]
