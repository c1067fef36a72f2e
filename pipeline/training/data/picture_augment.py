"""Augmentation of whole pictures: rotation, zoom, flips and mild colour jitter."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.model.domain import Rgb


@dataclass(frozen=True, slots=True)
class PictureAugment:
    """Ranges of the augmentation; draws are uniform. All zero: no augmentation.

    Rotation and zoom are those of Keras' RandomRotation and RandomZoom: bilinear, reflected at the border.
    """

    turn: float
    """rotation to either side, as a share of a full turn"""
    zoom: float
    """in and out, as a share of the side"""
    flip_probability: float
    """of each of the two axes"""
    gain: float
    """of all channels together"""
    channel_gain: float
    """of each channel separately"""
    saturation: float


def augmented(rng: np.random.Generator, spec: PictureAugment, picture: Rgb) -> Rgb:
    """Return uint8 (H, W, 3), an augmented picture."""
    out = picture
    if spec.turn > 0.0 or spec.zoom > 0.0:
        out = _moved(rng, spec, out)
    for axis in (0, 1):
        if rng.random() < spec.flip_probability:
            out = np.flip(out, axis)
    if spec.gain > 0.0 or spec.channel_gain > 0.0 or spec.saturation > 0.0:
        out = _recoloured(rng, spec, out)
    return np.ascontiguousarray(out)


def _moved(rng: np.random.Generator, spec: PictureAugment, picture: Rgb) -> Rgb:
    height, width = picture.shape[:2]
    degrees = 360.0 * rng.uniform(-spec.turn, spec.turn)
    shrunk = 1.0 + rng.uniform(-spec.zoom, spec.zoom)
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0 / shrunk)
    moved = cv2.warpAffine(
        picture, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return np.asarray(moved, np.uint8)


def _recoloured(rng: np.random.Generator, spec: PictureAugment, picture: Rgb) -> Rgb:
    keep = 1.0 + rng.uniform(-spec.saturation, spec.saturation)
    gains = 1.0 + rng.uniform(-spec.gain, spec.gain) + rng.uniform(-spec.channel_gain, spec.channel_gain, 3)
    grey = picture.mean(axis=2, keepdims=True)
    changed = (grey + keep * (picture - grey)) * gains
    return np.asarray(np.clip(np.rint(changed), 0, 255), np.uint8)
