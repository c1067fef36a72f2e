"""The errors of unreadable scans: a stable code for programs, and a sentence for the technician."""

from __future__ import annotations

from enum import StrEnum

from pipeline.model.errors import InputError


class Refusal(StrEnum):
    """The codes of the InputErrors that readers raise."""

    NOT_A_FILE = "not_a_file"
    EMPTY_FILE = "empty_file"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TRUNCATED = "truncated"
    TOO_LARGE = "too_large"
    EMPTY_IMAGE = "empty_image"
    DAMAGED_HEADER = "damaged_header"
    DAMAGED_IMAGE = "damaged_image"
    DAMAGED_TILE = "damaged_tile"


_SENTENCES = {
    Refusal.NOT_A_FILE: "There is no file to read: upload the scan again.",
    Refusal.EMPTY_FILE: "The file is empty: upload the scan again.",
    Refusal.NOT_AN_IMAGE: "The content is not an image, whatever its name says: export the scan again.",
    Refusal.UNSUPPORTED_FORMAT: "This format is not supported: export as SVS, tiled TIFF, PNG or JPEG.",
    Refusal.TRUNCATED: "The file ends before its image does: the upload was cut short, so upload it again.",
    Refusal.TOO_LARGE: "The image is larger than the limits of this installation: export a tiled pyramid.",
    Refusal.EMPTY_IMAGE: "The image is 0 pixels wide or high: scan or export it again.",
    Refusal.DAMAGED_HEADER: "The header contradicts the rest of the file: export the scan again.",
    Refusal.DAMAGED_IMAGE: "The image is damaged and cannot be decoded: export the scan again.",
    Refusal.DAMAGED_TILE: "A part of the scan is damaged and cannot be decoded: export the scan again.",
}


def refuse(refusal: Refusal, sentence: str | None = None) -> InputError:
    """Return the error to raise; `sentence` replaces the default one."""
    return InputError(sentence or _SENTENCES[refusal], code=refusal.value)


def refuse_format(kind: str) -> InputError:
    """Return the error for a recognised format that is not supported; `kind` is its name."""
    return refuse(
        Refusal.UNSUPPORTED_FORMAT,
        f"This is {kind}, which leukoflow does not support: export as SVS, tiled TIFF, PNG or JPEG.",
    )
