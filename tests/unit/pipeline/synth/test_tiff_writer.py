"""The pyramid writer, read back by tifffile."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pipeline.model.domain import Rgb
from pipeline.model.geometry import Mpp, Rect, Size
from pipeline.synth.tiff_writer import write_pyramid


def _picture(width: int, height: int) -> Rgb:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256 // 2], 2).astype(
        np.uint8
    )


def _write(path: Path, picture: Rgb, **options: int) -> list[Rect]:
    asked: list[Rect] = []

    def read(rect: Rect) -> Rgb:
        asked.append(rect)
        return picture[rect.y : rect.bottom, rect.x : rect.right]

    write_pyramid(path, Size(picture.shape[1], picture.shape[0]), read, Mpp(0.1234), **options)
    return asked


@pytest.mark.parametrize(
    ("size", "levels"),
    [
        ((700, 300), [(700, 300)]),
        ((1023, 5), [(1023, 5)]),
        ((1024, 512), [(1024, 512), (512, 256)]),
        ((2301, 1025), [(2301, 1025), (1151, 513), (576, 257)]),
    ],
)
def test_levels_halve_until_they_are_small(
    tmp_path: Path, size: tuple[int, int], levels: list[tuple[int, int]]
) -> None:
    picture = _picture(*size)
    _write(tmp_path / "a.tiff", picture)
    with tifffile.TiffFile(tmp_path / "a.tiff") as tiff:
        assert [(page.imagewidth, page.imagelength) for page in tiff.pages] == levels
        assert [page.subfiletype for page in tiff.pages] == [0] + [1] * (len(levels) - 1)
        for number, page in enumerate(tiff.pages):
            assert (page.tilewidth, page.tilelength) == (256, 256)
            shown = page.asarray().astype(float)
            source = picture[:: 2**number, :: 2**number].astype(float)
            assert np.abs(shown - source)[:-1, :-1].mean() < 4
            numerator, denominator = page.tags["XResolution"].value
            assert numerator / denominator == pytest.approx(10_000 / (0.1234 * 2**number), rel=1e-6)
            assert page.tags["ResolutionUnit"].value == 3


def test_level_0_is_asked_for_once_in_bands(tmp_path: Path) -> None:
    asked = _write(tmp_path / "a.tiff", _picture(1300, 600))
    assert asked == [Rect(0, 0, 1300, 256), Rect(0, 256, 1300, 256), Rect(0, 512, 1300, 88)]


def test_a_level_is_the_box_mean_of_the_one_before(tmp_path: Path) -> None:
    grey = np.repeat((np.indices((1026, 1026)).sum(0) % 2 * 200)[..., None], 3, 2).astype(np.uint8)
    _write(tmp_path / "a.tiff", grey, quality=100)
    level_1 = tifffile.imread(tmp_path / "a.tiff", key=1)
    assert np.abs(level_1.astype(int) - 100).max() <= 2


def test_the_same_pixels_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _write(tmp_path / name, _picture(1100, 300))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_nothing_is_left_of_a_picture_that_failed(tmp_path: Path) -> None:
    def read(rect: Rect) -> Rgb:
        if rect.y:
            raise ValueError("the source ended")
        return np.zeros((rect.height, rect.width, 3), np.uint8)

    with pytest.raises(ValueError, match="the source ended"):
        write_pyramid(tmp_path / "a.tiff", Size(600, 600), read, Mpp(0.25))
    assert list(tmp_path.iterdir()) == []


def test_memory_follows_the_width_not_the_height(tmp_path: Path) -> None:
    def peak_kb() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def read(rect: Rect) -> Rgb:
        return np.zeros((rect.height, rect.width, 3), np.uint8)

    write_pyramid(tmp_path / "low.tiff", Size(4096, 2048), read, Mpp(0.25))
    before_kb = peak_kb()
    write_pyramid(tmp_path / "high.tiff", Size(4096, 16_384), read, Mpp(0.25))
    decoded_kb = 4096 * 16_384 * 3 // 1024
    assert peak_kb() - before_kb < decoded_kb / 5
