"""What arrives and cannot be read ends in an InputError with a stable code and one sentence."""

from __future__ import annotations

import io
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pipeline.model.errors import InputError
from pipeline.model.geometry import Rect
from pipeline.runtime.readers import DecodeLimits, Refusal, open_slide
from tests.support.scan_files import FORMATS, png_bytes, smooth_rgb, tiff_bytes, with_tag

WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC, OFFSETS, STRIP_BYTES = 256, 257, 259, 262, 273, 279
TILE_WIDTH, TILE_OFFSETS, TILE_BYTES, SAMPLES_PER_PIXEL = 322, 324, 325, 277


def _file(name: str) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        return FORMATS[name](folder / "whole").path.read_bytes()

    return make


def _cut(name: str, keep: float) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        whole = _file(name)(folder)
        return whole[: int(len(whole) * keep)]

    return make


def _bomb_tile(_: Path) -> bytes:
    """A JPEG tile of 64 × 64 whose frame header claims 65,000 × 65,000."""
    whole = bytearray(tiff_bytes(compression="jpeg", tile=(64, 64)))
    frame = whole.index(b"\xff\xc0")
    whole[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    return bytes(whole)


def _noise_tiles(_: Path) -> bytes:
    whole = tiff_bytes(compression="deflate", tile=(64, 64))
    with tifffile.TiffFile(io.BytesIO(whole)) as tiff:
        start = tiff.pages[0].dataoffsets[0]
    return whole[: start + 2] + b"\xff" * 40 + whole[start + 42 :]


def _circle(_: Path) -> bytes:
    whole = bytearray(tiff_bytes())
    first = struct.unpack_from("<I", whole, 4)[0]
    count = struct.unpack_from("<H", whole, first)[0]
    struct.pack_into("<I", whole, first + 2 + 12 * count, first)
    return bytes(whole)


def _lying(tag: int, value: int, **options: object) -> Callable[[Path], bytes]:
    return lambda _: with_tag(tiff_bytes(**options), tag, value)


def _bytes(content: bytes) -> Callable[[Path], bytes]:
    return lambda _: content


def _float_tiff(folder: Path) -> bytes:
    tifffile.imwrite(folder / "float", smooth_rgb().astype(np.float32), photometric="rgb")
    return (folder / "float").read_bytes()


def _lost_alpha(folder: Path) -> bytes:
    """Says that one of its samples is alpha, and has only three."""
    rgba = np.dstack([smooth_rgb(), smooth_rgb()[..., :1]])
    tifffile.imwrite(folder / "rgba", rgba, photometric="rgb", extrasamples=["unassalpha"], metadata=None)
    return with_tag((folder / "rgba").read_bytes(), SAMPLES_PER_PIXEL, 3)


DICOM = b"\0" * 128 + b"DICM" + b"\0" * 200
JPEG_0 = b"\xff\xd8\xff\xc0\x00\x11\x08\x00\x00\x00\x00\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01\xff\xd9"

CASES: dict[str, tuple[Callable[[Path], bytes], Refusal]] = {
    "nothing": (_bytes(b""), Refusal.EMPTY_FILE),
    "text": (_bytes(b"patient,slide\n1,2\n" * 40), Refusal.NOT_AN_IMAGE),
    "zeros": (_bytes(bytes(4096)), Refusal.NOT_AN_IMAGE),
    "text that begins with BM": (_bytes(b"BM is not always a bitmap. " * 9), Refusal.NOT_AN_IMAGE),
    "two bytes of a JPEG": (_bytes(b"\xff\xd8"), Refusal.NOT_AN_IMAGE),
    "DICOM": (_bytes(DICOM), Refusal.UNSUPPORTED_FORMAT),
    "GIF": (_bytes(b"GIF89a" + bytes(40)), Refusal.UNSUPPORTED_FORMAT),
    "PDF": (_bytes(b"%PDF-1.7" + bytes(40)), Refusal.UNSUPPORTED_FORMAT),
    "JPEG cut": (_cut("jpeg", 0.6), Refusal.TRUNCATED),
    "PNG cut": (_cut("png", 0.6), Refusal.TRUNCATED),
    "BMP cut": (_cut("bmp", 0.6), Refusal.TRUNCATED),
    "strips cut": (_cut("tiff-strips", 0.9), Refusal.TRUNCATED),
    "tiles cut": (_cut("tiff-jpeg-tiles", 0.9), Refusal.TRUNCATED),
    "SVS cut": (_cut("svs", 0.5), Refusal.TRUNCATED),
    "pyramid cut": (_cut("tiff-pyramid", 0.9), Refusal.TRUNCATED),
    "TIFF of 8 bytes": (_bytes(tiff_bytes()[:8]), Refusal.TRUNCATED),
    "TIFF of 4 bytes": (_bytes(b"II*\0"), Refusal.TRUNCATED),
    "PNG 0 × 0": (_bytes(png_bytes(0, 0)), Refusal.EMPTY_IMAGE),
    "JPEG of height 0": (_bytes(JPEG_0), Refusal.EMPTY_IMAGE),
    "PNG 60,000 × 60,000": (_bytes(png_bytes(60_000, 60_000, bytes(10**6))), Refusal.TOO_LARGE),
    "strips of 60,000 × 60,000": (_lying(WIDTH, 60_000_000, rowsperstrip=149), Refusal.TOO_LARGE),
    "a tile of 1,000,000 px": (_lying(TILE_WIDTH, 16 * 10**6, tile=(160, 208)), Refusal.TOO_LARGE),
    "width of 4 billion": (_lying(WIDTH, 2**32 - 1, tile=(64, 64)), Refusal.DAMAGED_HEADER),
    "height of 4 billion": (_lying(HEIGHT, 2**32 - 1, tile=(64, 64)), Refusal.DAMAGED_HEADER),
    "tiles of 1 px": (_lying(TILE_WIDTH, 1, tile=(64, 64)), Refusal.DAMAGED_HEADER),
    "tiles of 0 px": (_lying(TILE_WIDTH, 0, tile=(64, 64)), Refusal.DAMAGED_HEADER),
    "strips beyond the end": (_lying(OFFSETS, 10**9, rowsperstrip=149), Refusal.TRUNCATED),
    "a strip of 4 GB": (_lying(STRIP_BYTES, 2**32 - 1, rowsperstrip=149), Refusal.TRUNCATED),
    "tiles beyond the end": (_lying(TILE_OFFSETS, 10**9, tile=(160, 208)), Refusal.TRUNCATED),
    "a tile of 4 GB": (_lying(TILE_BYTES, 2**32 - 1, tile=(160, 208)), Refusal.TRUNCATED),
    "unknown compression": (_lying(COMPRESSION, 52479), Refusal.UNSUPPORTED_FORMAT),
    "unknown colours": (_lying(PHOTOMETRIC, 32803), Refusal.UNSUPPORTED_FORMAT),
    "alpha that is not there": (_lost_alpha, Refusal.UNSUPPORTED_FORMAT),
    "floating point": (_float_tiff, Refusal.UNSUPPORTED_FORMAT),
    "directories in a circle": (_circle, Refusal.DAMAGED_HEADER),
    "noise in a tile": (_noise_tiles, Refusal.DAMAGED_TILE),
    "a tile that claims to be a bomb": (_bomb_tile, Refusal.DAMAGED_TILE),
}


def _read_all(path: Path, limits: DecodeLimits) -> None:
    with open_slide(path, limits) as slide:
        size = slide.meta.size_px0
        slide.read(0, Rect(0, 0, min(size.width, 4000), min(size.height, 4000)))


@pytest.mark.parametrize("name", CASES)
def test_refused_with_a_code_and_a_sentence(name: str, tmp_path: Path) -> None:
    make, refusal = CASES[name]
    scan = tmp_path / "SECRET-patient-7.png"
    scan.write_bytes(make(tmp_path))
    started_s = time.monotonic()
    with pytest.raises(InputError) as caught:
        _read_all(scan, DecodeLimits())
    assert caught.value.code == refusal.value
    sentence = caught.value.sentence
    assert "SECRET" not in sentence
    assert "\n" not in sentence
    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert time.monotonic() - started_s < 2.0


@pytest.mark.parametrize("missing", ["absent", "."])
def test_no_file(tmp_path: Path, missing: str) -> None:
    with pytest.raises(InputError) as caught:
        _read_all(tmp_path / missing, DecodeLimits())
    assert caught.value.code == Refusal.NOT_A_FILE


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("png", DecodeLimits(max_pixels=203 * 149 - 1)),
        ("jpeg", DecodeLimits(max_pixels=1000)),
        ("tiff-strips", DecodeLimits(max_pixels=1000)),
        ("tiff-jpeg-tiles", DecodeLimits(max_level0_pixels=1000)),
        ("tiff-jpeg-tiles", DecodeLimits(max_tiles=3)),
        ("tiff-jpeg-tiles", DecodeLimits(max_tile_pixels=64 * 64 - 1)),
        ("svs", DecodeLimits(max_file_bytes=1000)),
    ],
)
def test_each_limit_holds(tmp_path: Path, name: str, limits: DecodeLimits) -> None:
    scan = FORMATS[name](tmp_path / "scan")
    with pytest.raises(InputError) as caught:
        _read_all(scan.path, limits)
    assert caught.value.code == Refusal.TOO_LARGE


def test_the_limit_itself_is_allowed(tmp_path: Path) -> None:
    scan = FORMATS["png"](tmp_path / "scan")
    with open_slide(scan.path, DecodeLimits(max_pixels=203 * 149)) as slide:
        assert slide.meta.size_px0.area == 203 * 149


@pytest.mark.parametrize(
    "name",
    ["png", "jpeg", "bmp", "tiff-lzw", "tiff-jpeg-tables", "tiff-big", "tiff-planes", "tiff-pyramid", "svs"],
)
def test_damage_anywhere_never_ends_in_another_error(tmp_path: Path, name: str) -> None:
    """Seeded damage of one to four bytes in headers: a result or an InputError, and never long."""
    whole = FORMATS[name](tmp_path / "whole").path.read_bytes()
    interesting = list(range(200)) + list(range(max(0, len(whole) - 600), len(whole)))
    dice = random.Random(name)
    limits = DecodeLimits(max_pixels=4_000_000, max_tile_pixels=1_000_000)
    refused = 0
    for number in range(120):
        damaged = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            damaged[dice.choice(interesting)] = dice.choice((0, 1, 0x7F, 0xFF, dice.randrange(256)))
        (tmp_path / "scan").write_bytes(damaged if number % 5 else damaged[: dice.randrange(len(damaged))])
        try:
            _read_all(tmp_path / "scan", limits)
        except InputError:
            refused += 1
    assert refused > 10


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("unopenable.tiff", Refusal.UNSUPPORTED_FORMAT),
        ("unreadable.svs", Refusal.DAMAGED_TILE),
        ("sm_image.dcm", Refusal.UNSUPPORTED_FORMAT),
    ],
)
def test_fixtures_broken_on_purpose(shared_data: Path, name: str, refusal: Refusal) -> None:
    with pytest.raises(InputError) as caught:
        _read_all(shared_data / "slide_fixtures" / name, DecodeLimits())
    assert caught.value.code == refusal
