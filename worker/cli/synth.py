"""synth: draw blood smears, with their truth beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cv2
import typer

from pipeline.model.errors import UsageError
from pipeline.model.geometry import Mpp, Rect, Size
from pipeline.model.wording import counted
from pipeline.synth.plan import field_specs
from pipeline.synth.smear import Smear, draw_smear, truth_document
from pipeline.synth.smear_spec import SmearSpec
from pipeline.synth.tiff_writer import write_pyramid
from worker.cli.output_files import made_folder

JPEG_QUALITY = 92


def synth(
    out: Annotated[Path, typer.Argument(help="Folder to write to.")],
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 1,
    size: Annotated[int, typer.Option(min=16, help="Width and height of a slide in pixels.")] = 4096,
    mpp: Annotated[float, typer.Option(help="µm per pixel of a slide.")] = 0.25,
    leukocytes: Annotated[int, typer.Option(min=0, help="Leukocytes on a slide.")] = 150,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same pixels.")] = 0,
    fields: Annotated[bool, typer.Option("--fields", help="Camera fields of 640×480 px instead.")] = False,
) -> None:
    """Draw blood smears, as pyramidal TIFF or JPEG fields, each with its truth. No evidence of accuracy."""
    made_folder(out)
    specs = field_specs(seed, count) if fields else _slides(count, Size(size, size), mpp, leukocytes, seed)
    for number, spec in enumerate(specs):
        smear = _drawn(spec)
        path = out / (f"field-{seed}-{number:04d}.jpg" if fields else f"slide-{seed}-{number:04d}.tif")
        if fields:
            write_field(path, smear)
        else:
            write_slide(path, smear)
        typer.echo(f"{path}  {counted(len(smear.truth), 'leukocyte')}")


def _slides(count: int, size_px0: Size, mpp: float, leukocytes: int, seed: int) -> list[SmearSpec]:
    try:
        return [
            SmearSpec(size_px0, seed=seed + number, mpp=Mpp(mpp), leukocytes=leukocytes)
            for number in range(count)
        ]
    except ValueError as error:
        raise UsageError(f"this smear cannot be drawn: {error}", code="synth_invalid") from error


def _drawn(spec: SmearSpec) -> Smear:
    try:
        return draw_smear(spec)
    except ValueError as error:
        raise UsageError(f"this smear cannot be drawn: {error}", code="synth_invalid") from error


def write_slide(path: Path, smear: Smear) -> None:
    """Write a smear as a pyramid, and its truth beside it."""
    write_pyramid(path, smear.spec.size_px0, smear.read, smear.spec.mpp)
    path.with_suffix(".truth.json").write_text(truth_document(smear), encoding="utf-8")


def write_field(path: Path, smear: Smear) -> None:
    """Write a smear as a JPEG, and its truth beside it."""
    size = smear.spec.size_px0
    pixels = cv2.cvtColor(smear.read(Rect(0, 0, size.width, size.height)), cv2.COLOR_RGB2BGR)
    done, body = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ValueError("the field could not be encoded")
    path.write_bytes(body.tobytes())
    path.with_suffix(".truth.json").write_text(truth_document(smear), encoding="utf-8")
