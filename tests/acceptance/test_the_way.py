"""A scan dropped into the bucket becomes a differential; whatever else is dropped gets its reason."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from db.reads import cells_of_run
from db.registration import requeue
from db.states import ScanState
from pipeline.model.errors import InputError
from tests.acceptance.pictures import encoded, field_jpeg, png_bomb
from tests.support.deployment import Deployment


@pytest.fixture(scope="module")
def field() -> bytes:
    return field_jpeg(3)


def _grey(pixels):
    return encoded(pixels, "PNG", "L")


def _sixteen_bit(pixels):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels.astype(np.uint16) * 257, photometric="rgb")
    return buffer.getvalue()


def _lying_tiff(pixels):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, photometric="rgb", tile=(64, 64))
    body = bytearray(buffer.getvalue())
    return bytes(body[: len(body) // 3])


def test_every_kind_of_upload_ends_with_a_result_or_a_reason(deployment: Deployment, field: bytes):
    pixels = np.asarray(Image.open(io.BytesIO(field)).convert("RGB"))
    good = {
        "P-1/S-1/field.jpg": field,
        "P-1/S-1/grey.png": _grey(pixels),
        "P-1/S-1/sixteen.tif": _sixteen_bit(pixels),
        "P-1/S-1/alpha.png": encoded(pixels, "PNG", "RGBA"),
        "P-1/S-1/cmyk.jpg": encoded(pixels, "JPEG", "CMYK"),
        "P-1/S-1/bitmap.bmp": encoded(pixels, "BMP"),
        "P-1/S-1/wrong-ending.tif": field + b"\n",
        "Пациент-7/проба 1/мазок № 1.jpg": field + b"\n\n",
    }
    bad = {
        "P-2/S-1/truncated.jpg": field[: len(field) // 2],
        "P-2/S-1/empty.png": b"",
        "P-2/S-1/text.png": b"this is no picture\n" * 40,
        "P-2/S-1/bomb.png": png_bomb(),
        "P-2/S-1/lying.tif": _lying_tiff(pixels),
    }
    nameless = {"loose.jpg": field + b"\n\n\n", "a//b.jpg": field + b"\n\n\n\n", "x/../y/z/w.jpg": field}
    for key, body in {**good, **bad}.items():
        deployment.drop(key, body)
    dropped = len(good) + len(bad)
    for key, body in nameless.items():
        dropped += _dropped(deployment, key, body)

    deployment.until_ended(dropped)

    counts = deployment.counts()
    assert counts[ScanState.COMPLETED] == len(good), deployment.logs()
    assert counts[ScanState.QUARANTINED] == len(bad)
    assert counts[ScanState.UNASSIGNED] == dropped - len(good) - len(bad)
    for row in deployment.rows():
        if row.state is not ScanState.COMPLETED:
            assert row.reason
            assert "\n" not in row.reason
    assert all(child.is_running() for child in deployment.children)


def _dropped(deployment: Deployment, key: str, body: bytes) -> bool:
    """Whether the server took the key: some keys no client can send."""
    try:
        deployment.drop(key, body)
    except InputError:
        return False
    return True


def test_a_patient_reads_counts_that_add_up(deployment: Deployment):
    found = deployment.results("P-1")
    assert found is not None
    assert all(slide.run is not None for slide in found.slides)
    with deployment.database.transaction() as connection:
        for slide in found.slides:
            cells = cells_of_run(connection, slide.run.run_id)
            assert len(cells) == slide.run.differential.n_found
    pooled = [slide.run.differential for slide in found.slides if slide.pooled]
    assert found.pooled.n_found == sum(d.n_found for d in pooled)
    assert found.pooled.n_leukocytes == sum(d.n_leukocytes for d in pooled)
    assert found.pooled.n_leukocytes > 0


def test_the_same_picture_under_another_patient_is_flagged_on_both(deployment: Deployment):
    body = field_jpeg(11)
    before = sum(deployment.counts().values())
    deployment.drop("P-3/S-1/a.jpg", body)
    deployment.drop("P-4/S-1/a.jpg", body)
    deployment.until_ended(before + 2)
    twins = [deployment.results(patient).slides[0] for patient in ("P-3", "P-4")]
    assert twins[0].same_content_as == twins[1].scan_id
    assert twins[1].same_content_as == twins[0].scan_id


def test_two_runs_give_identical_rows(deployment: Deployment):
    body = field_jpeg(13)
    before = sum(deployment.counts().values())
    deployment.drop("P-6/S-1/a.jpg", body)
    deployment.drop("P-6/S-1/b.jpg", body)
    deployment.until_ended(before + 2)
    one, other = deployment.results("P-6").slides
    with deployment.database.transaction() as connection:
        rows = [repr(cells_of_run(connection, slide.run.run_id)) for slide in (one, other)]
    assert rows[0] == rows[1]
    assert one.run.differential == other.run.differential
    assert deployment.results("P-6").n_slides_pooled == 1


def test_analysing_again_changes_no_row(deployment: Deployment):
    (before,) = deployment.results("P-6").slides[:1]
    with deployment.database.transaction() as connection:
        cells = repr(cells_of_run(connection, before.run.run_id))
        requeue(connection, before.scan_id)
    deployment.until_ended(sum(deployment.counts().values()))
    (after,) = deployment.results("P-6").slides[:1]
    assert after.run == before.run
    with deployment.database.transaction() as connection:
        assert repr(cells_of_run(connection, after.run.run_id)) == cells


def test_metadata_names_the_patient(deployment: Deployment):
    before = sum(deployment.counts().values())
    deployment.drop("inbox-4711.jpg", field_jpeg(12), {"patient-id": "P-5", "specimen-id": "S-9"})
    deployment.until_ended(before + 1)
    (slide,) = deployment.results("P-5").slides
    assert slide.state is ScanState.COMPLETED
    assert slide.specimen == "S-9"


def test_pictures_lie_beside_the_result_under_names_that_say_nothing(deployment: Deployment):
    (slide,) = deployment.results("P-5").slides
    kinds = {artefact.kind for artefact in slide.run.artefacts}
    assert {"overview", "cells"} <= kinds
    for artefact in slide.run.artefacts:
        assert artefact.object_name.startswith("runs/")
        assert "P-5" not in artefact.object_name


def test_no_log_names_a_patient(deployment: Deployment):
    logs = deployment.logs()
    assert "worker_ready" in logs
    for telling in ("P-1", "P-5", "S-9", "Пациент", "inbox-4711", "field.jpg"):
        assert telling not in logs
    for line in logs.splitlines():
        assert json.loads(line)["level"]
