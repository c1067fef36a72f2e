"""Parts of the readers that can be asked on their own: scales, descriptions, cache, claims."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pipeline.model.geometry import Mpp, Size
from pipeline.runtime.readers import open_slide
from pipeline.runtime.readers.aperio import microscope_of, printable
from pipeline.runtime.readers.codestream import jpeg2000_size, jpeg_size
from pipeline.runtime.readers.resolution import UM_PER_CM, UM_PER_INCH, from_density
from pipeline.runtime.readers.tile_cache import TileCache

GREY = np.full((16, 16, 3), 128, np.uint8)


@pytest.mark.parametrize(
    ("x", "y", "unit_um", "mpp"),
    [
        (40_000, 40_000, UM_PER_CM, 0.25),
        (101_600, 101_600, UM_PER_INCH, 0.25),
        (40_000, 41_000, UM_PER_CM, (0.25 + 10 / 41) / 2),
        (5_000, 5_000, UM_PER_CM, 2.0),
        (4_900, 4_900, UM_PER_CM, None),
        (600_000, 600_000, UM_PER_CM, None),
        (72, 72, UM_PER_INCH, None),
        (96, 96, UM_PER_INCH, None),
        (300, 300, UM_PER_INCH, None),
        (1, 1, UM_PER_INCH, None),
        (40_000, 43_000, UM_PER_CM, None),
        (0, 40_000, UM_PER_CM, None),
        (-1, -1, UM_PER_CM, None),
        (float("nan"), 1.0, UM_PER_CM, None),
        (float("inf"), float("inf"), UM_PER_CM, None),
    ],
)
def test_only_a_microscopes_density_is_believed(
    x: float, y: float, unit_um: float, mpp: float | None
) -> None:
    found = from_density(x, y, unit_um)
    assert (found and found.um_per_px0) == (mpp if mpp is None else pytest.approx(mpp))


@pytest.mark.parametrize(
    ("density", "unit", "mpp"),
    [
        ((40_000, 40_000), "CENTIMETER", 0.25),
        ((101_600, 101_600), "INCH", 0.25),
        ((40_000, 40_000), "NONE", None),
    ],
)
def test_the_density_of_a_tiff(
    tmp_path: Path, density: tuple[int, int], unit: str, mpp: float | None
) -> None:
    tifffile.imwrite(tmp_path / "scan", GREY, photometric="rgb", resolution=density, resolutionunit=unit)
    with open_slide(tmp_path / "scan") as slide:
        assert (slide.meta.mpp and slide.meta.mpp.um_per_px0) == (mpp if mpp is None else pytest.approx(mpp))


@pytest.mark.parametrize(("dpi", "mpp"), [(254_000, 0.1), (96, None), (300, None)])
def test_the_density_of_a_png_or_bmp(tmp_path: Path, dpi: int, mpp: float | None) -> None:
    for kind in ("PNG", "BMP"):
        Image.fromarray(GREY).save(tmp_path / kind, kind, dpi=(dpi, dpi))
        with open_slide(tmp_path / kind) as slide:
            found = slide.meta.mpp
        assert (found and found.um_per_px0) == (mpp if mpp is None else pytest.approx(mpp, rel=1e-3))


@pytest.mark.parametrize(("dpi", "mpp"), [(50_800, 0.5), (72, None)])
def test_the_density_of_a_jpeg(tmp_path: Path, dpi: int, mpp: float | None) -> None:
    Image.fromarray(GREY).save(tmp_path / "scan", "JPEG", dpi=(dpi, dpi))
    with open_slide(tmp_path / "scan") as slide:
        assert (slide.meta.mpp and slide.meta.mpp.um_per_px0) == (mpp if mpp is None else pytest.approx(mpp))


def test_a_jpeg_without_density_has_no_scale(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "scan", "JPEG")
    with open_slide(tmp_path / "scan") as slide:
        assert slide.meta.mpp is None


def test_what_an_aperio_description_says() -> None:
    optics = microscope_of("Aperio v1\r\n1x1 |AppMag = 20|ScanScope ID = SS1302|MPP = 0.4990|Title = a = b")
    assert (optics.mpp, optics.objective, optics.scanner) == (Mpp(0.499), 20.0, "Aperio SS1302")
    nonsense = microscope_of("Aperio|AppMag = unknown|MPP = 353")
    assert (nonsense.mpp, nonsense.objective, nonsense.scanner) == (None, None, "Aperio")


def test_the_cache_keeps_the_tiles_used_last_within_its_bytes() -> None:
    decoded: list[int] = []

    def ask(index: int) -> int:
        def decode() -> np.ndarray:
            decoded.append(index)
            return np.full((10, 10, 3), index, np.uint8)

        return int(cache.get((0, index), decode)[0, 0, 0])

    cache = TileCache(max_bytes=900)
    assert [ask(index) for index in (1, 2, 3, 1, 4, 1, 2)] == [1, 2, 3, 1, 4, 1, 2]
    assert decoded == [1, 2, 3, 4, 2]
    assert cache.held_bytes == 900


def test_a_cache_without_room_still_gives_the_tile() -> None:
    cache = TileCache(max_bytes=10)
    assert cache.get((0, 0), lambda: GREY.copy()).shape == GREY.shape
    assert cache.held_bytes == 0


def test_the_size_that_a_compressed_tile_claims(tmp_path: Path) -> None:
    picture = np.zeros((40, 56, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.jpg", progressive=True)
    Image.fromarray(picture).save(tmp_path / "a.jp2")
    assert jpeg_size((tmp_path / "a.jpg").read_bytes()) == Size(56, 40)
    assert jpeg2000_size((tmp_path / "a.jp2").read_bytes()) == Size(56, 40)
    for noise in (b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x00" * 9, bytes(99), b"\xff" * 99):
        assert jpeg_size(noise) is None
        assert jpeg2000_size(noise) is None


def test_what_a_tag_says_is_printable():
    assert printable("Acme\0Scan  M\x001\n") == "Acme Scan M 1"
