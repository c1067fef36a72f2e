"""Pixels that are in memory already, as a scan of one level."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.model.domain import Rgb, SlideMeta
from pipeline.model.errors import UsageError
from pipeline.model.geometry import Mpp, Size
from pipeline.runtime.readers import resolution
from pipeline.runtime.readers.raster import RasterReader, single_level

FILE_FORMAT = "array"
_CHANNELS = 3


def read_array(pixels: NDArray[np.generic], mpp_um: float | None = None) -> RasterReader:
    """Return a scan over `pixels`: uint8 (H, W, 3), red green blue. They are not copied.

    `mpp_um` is µm per pixel; None where it is not known. BGR, as OpenCV reads it, cannot be told from RGB.

    Raises: UsageError, where the array is of another kind, or the scale is no microscope's.
    """
    rgb = _checked(pixels)
    size_px0 = Size(rgb.shape[1], rgb.shape[0])
    meta = SlideMeta(
        size_px0=size_px0,
        mpp=None if mpp_um is None else _scale(mpp_um),
        objective=None,
        scanner=None,
        file_format=FILE_FORMAT,
        levels=single_level(size_px0),
    )
    return RasterReader(rgb, meta)


def _checked(pixels: NDArray[np.generic]) -> Rgb:
    if not isinstance(pixels, np.ndarray):
        raise _misfit(f"It is a {type(pixels).__name__}: convert it with numpy.asarray")
    shape, dtype = pixels.shape, pixels.dtype
    if len(shape) == 2:
        raise _misfit(f"Its shape is {shape}: repeat a grey picture with numpy.stack([array] * 3, axis=2)")
    if len(shape) != 3:
        raise _misfit(f"Its shape is {shape}: give one picture at a time")
    if shape[2] == _CHANNELS + 1:
        raise _misfit(f"Its shape is {shape}: leave out the alpha channel with array[..., :3]")
    if shape[2] != _CHANNELS and shape[0] == _CHANNELS:
        raise _misfit(f"Its shape is {shape}: move the colours last with numpy.moveaxis(array, 0, 2)")
    if shape[2] != _CHANNELS:
        raise _misfit(f"Its shape is {shape}")
    if not pixels.size:
        raise _misfit(f"Its shape is {shape}, which holds no pixel")
    if np.issubdtype(dtype, np.floating):
        raise _misfit(
            f"Its dtype is {dtype}: from 0 to 1, convert with (array * 255).round().astype('uint8')"
        )
    if dtype != np.uint8:
        raise _misfit(f"Its dtype is {dtype}: scale it to 0 to 255, then array.astype('uint8')")
    return pixels.view(np.uint8)


def _scale(mpp_um: float) -> Mpp:
    mpp = resolution.plausible_mpp(mpp_um, mpp_um)
    if mpp is None:
        raise UsageError(
            f"A scale of {mpp_um} µm per pixel is no microscope's: give mpp_um from {resolution.FINEST_UM:g} "
            f"to {resolution.COARSEST_UM:g}, or leave it out.",
            code="bad_scale",
        )
    return mpp


def _misfit(sentence: str) -> UsageError:
    return UsageError(f"The array is not uint8 (height, width, 3) RGB. {sentence}.", code="bad_array")
