"""Sprites of red cells and platelets: drawn once, used many times."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.synth.paint import blend
from pipeline.synth.placement import PLATELET_RADIUS_UM, RED_CELL_RADIUS_UM
from pipeline.synth.stain import Field, Stain
from pipeline.synth.texture import Texture, cut, ramp, soften

RED_CELL_VARIANTS = 160
PLATELET_VARIANTS = 40


@dataclass(frozen=True, slots=True)
class SpritePools:
    """Sprites with an odd side, centred on their middle pixel."""

    red_cells: tuple[Field, ...]
    """(S, S): amount of stained haemoglobin in the light path; 1 at the rim of a normal cell"""
    platelets: tuple[Field, ...]
    """(S, S, 3): transmittance"""


def draw_sprites(um_per_px0: float, stain: Stain, texture: Texture, seed: int, fine: int) -> SpritePools:
    """Return the sprites of one smear."""
    return SpritePools(
        tuple(
            _red_cell(um_per_px0, np.random.default_rng((seed, 7, i)), fine) for i in range(RED_CELL_VARIANTS)
        ),
        tuple(
            _platelet(um_per_px0, stain, texture, np.random.default_rng((seed, 8, i)), fine)
            for i in range(PLATELET_VARIANTS)
        ),
    )


def _grid(
    radius_um: float, um_per_px0: float, rng: np.random.Generator, fine: int
) -> tuple[Field, Field, int]:
    """Return distance (µm) and angle around a centre with a random subpixel shift, and the side of the
    sprite.
    """
    half = int(np.ceil(radius_um / um_per_px0))
    side = 2 * half + 1
    axis = (np.arange(side * fine, dtype=np.float32) + 0.5) / fine - side / 2
    shift = rng.uniform(-0.5, 0.5, 2)
    y, x = np.meshgrid(axis - shift[0], axis - shift[1], indexing="ij")
    distance = np.hypot(x, y) * um_per_px0
    return distance.astype(np.float32), np.arctan2(y, x).astype(np.float32), side


def _swell(angle: Field, roughness: float, rng: np.random.Generator) -> Field:
    swell = np.ones_like(angle)
    for k in range(2, 7):
        swell += np.float32(rng.normal(0, roughness / (k - 0.6))) * np.cos(
            k * angle + np.float32(rng.uniform(0, 2 * np.pi))
        )
    return swell


def _red_cell(um_per_px0: float, rng: np.random.Generator, fine: int) -> Field:
    """Return a biconcave disc. Source: Bain, ch. 3: the pallor takes the middle third of the diameter."""
    radius = RED_CELL_RADIUS_UM * float(np.clip(rng.normal(1.0, 0.055), 0.8, 1.2))
    distance, angle, side = _grid(radius * 1.45, um_per_px0, rng, fine)
    depth = distance / (radius * _swell(angle, 0.085 if rng.uniform() < 0.2 else 0.045, rng))
    disc = ramp((1 - depth) * np.float32(radius), -0.12, 0.32)
    pallor = rng.uniform(0.0, 0.25) if rng.uniform() < 0.22 else rng.uniform(0.35, 0.85)
    broad = rng.uniform(0.30, 0.46)
    dip = 1 - pallor / (1 + np.exp((depth - broad) * rng.uniform(11, 20)))
    rim = 1 + 0.10 * np.exp(-(((depth - 0.86) / 0.08) ** 2))
    thickness = np.asarray(disc * dip * rim * rng.normal(1.0, 0.08), np.float32)
    return np.asarray(cv2.resize(thickness, (side, side), interpolation=cv2.INTER_AREA), np.float32)


def _platelet(
    um_per_px0: float, stain: Stain, texture: Texture, rng: np.random.Generator, fine: int
) -> Field:
    radius = PLATELET_RADIUS_UM * float(np.clip(rng.normal(1.0, 0.18), 0.6, 1.7))
    distance, angle, side = _grid(radius * 1.7, um_per_px0, rng, fine)
    depth = distance / (radius * _swell(angle, 0.16, rng))
    body = ramp(1 - depth, -0.05, 0.35)
    grains = ramp(cut(texture.granular, distance.shape[0], distance.shape[1], rng), -0.6, 1.2) * ramp(
        1 - depth, 0.1, 0.6
    )
    whole = blend(np.broadcast_to(stain.platelet, (*body.shape, 3)), stain.platelet_granule, grains)
    drawn = 1 + (whole - 1) * soften(body, 0.08 / texture.um_per_px)[..., None]
    return np.asarray(cv2.resize(drawn, (side, side), interpolation=cv2.INTER_AREA), np.float32)
