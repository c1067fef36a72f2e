"""Augmentation of small pictures by what varies between laboratories: scale, stain, light, focus, file."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.model.domain import Rgb
from pipeline.training.data.targets import LabelMap, Tissue

_LUMA = np.array([0.299, 0.587, 0.114])
"""Source: ITU-R BT.601"""


@dataclass(frozen=True, slots=True)
class AugmentSpec:
    """Ranges of the augmentation; draws are uniform, those of the scale log-uniform."""

    scale_min: float
    scale_max: float
    """pictures are scaled by a factor between the two"""
    shift: float
    """of the centre, as a share of the side"""
    hue_rad: float
    saturation: float
    channel_mix: float
    gain: float
    bias: float
    gamma: float
    blur_probability: float
    blur_sigma_px: float
    jpeg_probability: float
    noise_probability: float
    vignette_probability: float
    grey_probability: float
    palette_probability: float = 0.0
    """of a colour transfer from another picture, before the other changes: `palettes`"""


@dataclass(frozen=True, slots=True)
class Warp:
    """An affine view: `matrix` (2, 3) maps pixels of the picture to pixels of the view."""

    matrix: NDArray[np.float64]
    side: int


def draw_warp(rng: np.random.Generator, spec: AugmentSpec, size: tuple[int, int], view: Warp) -> Warp:
    """Return `view`, a plain scaling, with a random rotation by quarter turns, flip, scale and shift.

    `size` is (height, width) of the picture; its centre is mapped near the centre of the view.
    """
    scale = float(np.exp(rng.uniform(np.log(spec.scale_min), np.log(spec.scale_max))))
    scale *= float(view.matrix[0, 0])
    quarter = int(rng.integers(4))
    turn = np.array([[1.0, 0.0], [0.0, 1.0]])
    for _ in range(quarter):
        turn = np.array([[0.0, -1.0], [1.0, 0.0]]) @ turn
    if rng.random() < 0.5:
        turn = np.array([[-1.0, 0.0], [0.0, 1.0]]) @ turn
    linear = scale * turn
    centre = np.array([size[1] / 2, size[0] / 2])
    target = view.side / 2 + view.side * rng.uniform(-spec.shift, spec.shift, size=2)
    return Warp(np.column_stack((linear, target - linear @ centre)), view.side)


def warped(picture: Rgb, warp: Warp, border: int) -> Rgb:
    """Return uint8 (side, side, 3); `border` is a cv2 border mode, constant means white."""
    out = cv2.warpAffine(
        picture,
        warp.matrix,
        (warp.side, warp.side),
        flags=cv2.INTER_LINEAR,
        borderMode=border,
        borderValue=(255, 255, 255),
    )
    return np.asarray(out, np.uint8)


def warped_labels(tissue: LabelMap, warp: Warp, border: int) -> LabelMap:
    """Return uint8 (side, side); a constant border is background."""
    out = cv2.warpAffine(
        tissue,
        warp.matrix,
        (warp.side, warp.side),
        flags=cv2.INTER_NEAREST,
        borderMode=border,
        borderValue=int(Tissue.BACKGROUND),
    )
    return np.asarray(out, np.uint8)


def colour_jittered(rng: np.random.Generator, spec: AugmentSpec, picture: Rgb) -> Rgb:
    """Return the picture with another stain, illumination, focus, noise and JPEG quality."""
    out = _recoloured(rng, spec, picture)
    if rng.random() < spec.vignette_probability:
        out = _vignetted(rng, out)
    if rng.random() < spec.blur_probability:
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), float(rng.uniform(0.3, spec.blur_sigma_px))), np.uint8)
    if rng.random() < spec.noise_probability:
        noise = rng.normal(0.0, rng.uniform(1.0, 8.0), size=out.shape)
        out = np.clip(out + noise, 0, 255).astype(np.uint8)
    if rng.random() < spec.jpeg_probability:
        _, encoded = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 92))])
        out = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return out


def _recoloured(rng: np.random.Generator, spec: AugmentSpec, picture: Rgb) -> Rgb:
    """Rotate the hue about the grey axis, change saturation, mix channels, then gain, bias and gamma."""
    angle = rng.uniform(-spec.hue_rad, spec.hue_rad)
    axis = np.full(3, 1.0 / np.sqrt(3.0))
    cross = np.array([[0.0, -axis[2], axis[1]], [axis[2], 0.0, -axis[0]], [-axis[1], axis[0], 0.0]])
    hue = np.eye(3) * np.cos(angle) + np.sin(angle) * cross + (1 - np.cos(angle)) * np.outer(axis, axis)
    keep = (
        0.0 if rng.random() < spec.grey_probability else 1.0 + rng.uniform(-spec.saturation, spec.saturation)
    )
    saturation = keep * np.eye(3) + (1.0 - keep) * np.tile(_LUMA, (3, 1))
    mix = np.eye(3) + rng.uniform(-spec.channel_mix, spec.channel_mix, size=(3, 3))
    mix /= mix.sum(axis=1, keepdims=True)
    mixed = cv2.transform(picture, mix @ saturation @ hue)
    levels = np.linspace(0.0, 1.0, 256)[:, None]
    shared, each = rng.uniform(-1, 1), rng.uniform(-1, 1, size=3)
    gamma = np.exp(spec.gamma * (0.7 * shared + 0.3 * each))
    gain = 1.0 + spec.gain * (0.6 * rng.uniform(-1, 1) + 0.4 * rng.uniform(-1, 1, size=3))
    curve = levels**gamma * gain + spec.bias * rng.uniform(-1, 1)
    table = np.clip(np.rint(curve * 255.0), 0, 255).astype(np.uint8).reshape(1, 256, 3)
    return np.asarray(cv2.LUT(mixed, table), np.uint8)


def _vignetted(rng: np.random.Generator, picture: Rgb) -> Rgb:
    """Add an illumination gradient in a random direction."""
    height, width = picture.shape[:2]
    angle = rng.uniform(0.0, 2 * np.pi)
    across = np.cos(angle) * np.linspace(-0.5, 0.5, width)[None, :]
    down = np.sin(angle) * np.linspace(-0.5, 0.5, height)[:, None]
    illumination = 1.0 + rng.uniform(0.1, 0.5) * (across + down)
    shaded: Rgb = np.clip(picture * illumination[:, :, None], 0, 255).astype(np.uint8)
    return shaded
