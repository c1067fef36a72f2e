"""One contract for every scan that can be opened, whatever its format."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.geometry import Mpp, Rect, Size
from pipeline.runtime.readers import DecodeLimits, open_slide
from tests.support.scan_files import FORMATS, ScanFile, array, smooth_rgb

SCANS = FORMATS | {"array": array}


@pytest.fixture(scope="module", params=SCANS)
def scan(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ScanFile:
    """Return one file of each format, under a name that says nothing about it, and one that is in memory."""
    return SCANS[request.param](tmp_path_factory.mktemp("scan") / "scan")


def _whole(scan: ScanFile) -> Rect:
    return Rect(0, 0, scan.expected.shape[1], scan.expected.shape[0])


def test_the_meta_says_what_the_file_is(scan: ScanFile) -> None:
    with scan.open() as slide:
        meta = slide.meta
    assert meta.file_format == scan.file_format
    assert meta.size_px0 == Size(scan.expected.shape[1], scan.expected.shape[0])
    assert (meta.levels[0].size_lv, meta.levels[0].downsample) == (meta.size_px0, 1.0)
    widths = [level.size_lv.width for level in meta.levels]
    assert widths == sorted(set(widths), reverse=True)


def test_level_0_is_the_full_decode(scan: ScanFile) -> None:
    with scan.open() as slide:
        pixels = slide.read(0, _whole(scan))
    assert pixels.dtype == np.uint8
    difference = np.abs(pixels.astype(int) - scan.expected)
    assert difference.max() <= (0 if scan.lossless else 1)


@settings(max_examples=15, deadline=None)
@given(
    x=st.integers(-40, 240),
    y=st.integers(-40, 180),
    width=st.integers(0, 150),
    height=st.integers(0, 150),
)
def test_a_region_is_a_part_of_the_whole_on_white(
    scan: ScanFile, x: int, y: int, width: int, height: int
) -> None:
    whole = _whole(scan)
    margin = 200
    with scan.open() as slide:
        level_0 = np.pad(
            slide.read(0, whole), ((margin, margin), (margin, margin), (0, 0)), constant_values=255
        )
        region = slide.read(0, Rect(x, y, width, height))
    assert region.shape == (height, width, 3)
    inside = level_0[margin + y :, margin + x :][:height, :width]
    assert np.array_equal(region[: inside.shape[0], : inside.shape[1]], inside)


def test_outside_the_scan_is_white(scan: ScanFile) -> None:
    whole = _whole(scan)
    with scan.open() as slide:
        beyond = slide.read(0, Rect(whole.width, whole.height, 9, 7))
        before = slide.read(0, Rect(-20, -20, 20, 20))
    assert (beyond == 255).all()
    assert (before == 255).all()


def test_every_level_shows_the_same_picture(scan: ScanFile) -> None:
    with scan.open() as slide:
        level_0 = slide.read(0, _whole(scan)).astype(float).mean((0, 1))
        for number, level in enumerate(slide.meta.levels):
            pixels = slide.read(number, Rect(0, 0, level.size_lv.width, level.size_lv.height))
            assert np.abs(pixels.mean((0, 1)) - level_0).max() < 4
        with pytest.raises(ValueError, match="no level"):
            slide.read(len(slide.meta.levels), Rect(0, 0, 1, 1))


def test_threads_read_at_once(scan: ScanFile) -> None:
    rects = [Rect(x, y, 50, 40) for y in range(0, 149, 40) for x in range(0, 203, 50)] * 3
    start = threading.Barrier(4)
    with scan.open(DecodeLimits(cache_bytes=50_000)) as slide, ThreadPoolExecutor(4) as pool:
        whole = slide.read(0, Rect(0, 0, 260, 200))

        def read_all(order: int) -> list[np.ndarray]:
            start.wait(timeout=30)
            return [slide.read(0, rect) for rect in rects[::order]][::order]

        for regions in pool.map(read_all, (1, -1, 1, -1)):
            for rect, region in zip(rects, regions, strict=True):
                assert np.array_equal(region, whole[rect.y : rect.bottom, rect.x : rect.right])


def test_what_was_read_belongs_to_the_reader_of_it(scan: ScanFile) -> None:
    with scan.open() as slide:
        before = slide.read(0, _whole(scan))
        scribbled = slide.read(0, _whole(scan))
        scribbled[:] = 7
        assert np.array_equal(slide.read(0, _whole(scan)), before)


def test_the_file_is_closed_afterwards(scan: ScanFile) -> None:
    def open_here() -> list[Path]:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return [link for link in links if link.resolve() == scan.path.resolve()]

    with scan.open() as slide:
        slide.read(0, Rect(0, 0, 8, 8))
    assert open_here() == []


def test_levels_of_a_pyramid(tmp_path: Path) -> None:
    with open_slide(FORMATS["tiff-pyramid"](tmp_path / "a").path) as slide:
        assert [level.size_lv for level in slide.meta.levels] == [Size(1500, 1100), Size(750, 550)]
        assert [level.downsample for level in slide.meta.levels] == [1.0, 2.0]
        assert slide.meta.mpp == Mpp(0.25)
    with open_slide(FORMATS["tiff-sub-ifds"](tmp_path / "b").path) as slide:
        assert [level.size_lv for level in slide.meta.levels] == [Size(512, 384), Size(256, 192)]


def test_an_svs_has_its_optics_and_neither_label_nor_macro(tmp_path: Path) -> None:
    with open_slide(FORMATS["svs"](tmp_path / "scan").path) as slide:
        meta = slide.meta
    assert (meta.mpp, meta.objective, meta.scanner) == (Mpp(0.252), 40.0, "Aperio SS7")
    assert [level.size_lv for level in meta.levels] == [Size(406, 298), Size(203, 149)]


def test_a_hole_in_a_tiled_scan_is_white(tmp_path: Path) -> None:
    """Scanners leave out tiles of empty glass: offset and byte count are 0."""
    picture = smooth_rgb(128, 64)
    tifffile.imwrite(tmp_path / "scan", picture, tile=(64, 64), photometric="rgb", metadata=None)
    with tifffile.TiffFile(tmp_path / "scan", mode="r+") as tiff:
        tiff.pages[0].tags["TileByteCounts"].overwrite((0, 64 * 64 * 3))
    with open_slide(tmp_path / "scan") as slide:
        pixels = slide.read(0, Rect(0, 0, 128, 64))
    assert (pixels[:, :64] == 255).all()
    assert np.array_equal(pixels[:, 64:], picture[:, 64:])


@pytest.mark.data
def test_real_fixtures_open(shared_data: Path) -> None:
    fixtures = shared_data / "slide_fixtures"
    with open_slide(fixtures / "CMU-1-Small-Region.svs") as slide:
        assert slide.meta.size_px0 == Size(2220, 2967)
        assert slide.meta.mpp == Mpp(0.499)
        assert slide.meta.objective == 20.0
        assert len(slide.meta.levels) == 1
        expected = tifffile.imread(fixtures / "CMU-1-Small-Region.svs", key=0)
        assert np.array_equal(slide.read(0, Rect(0, 0, 2220, 2967)), expected)
    with open_slide(fixtures / "boxes.tiff") as slide:
        assert [level.downsample for level in slide.meta.levels] == [1.0, 2.0, 4.0, 8.0]
        assert slide.meta.mpp is None


@pytest.mark.data
@pytest.mark.parametrize("folder", ["aml_lmu", "bccd", "pbc_barcelona", "zheng_d1_jtsc", "cnmc_subset"])
def test_real_cells_open(shared_data: Path, folder: str) -> None:
    files = sorted((shared_data / folder / "images").iterdir())
    assert files
    for file in files[:: max(1, len(files) // 5)]:
        expected = cv2.imread(str(file), cv2.IMREAD_COLOR)[..., ::-1]
        with open_slide(file) as slide:
            pixels = slide.read(0, Rect(0, 0, expected.shape[1], expected.shape[0]))
        assert np.abs(pixels.astype(int) - expected).max() <= 3
