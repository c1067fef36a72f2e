"""Identifies the patient of an upload from its metadata and key. Pure; nothing is guessed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header
from urllib.parse import quote, unquote

from db.states import Priority
from pipeline.model.errors import UsageError
from worker.key_pattern import KeyPattern, ScanIdentity

META_PATIENT = "patient-id"
META_SPECIMEN = "specimen-id"
META_PRIORITY = "priority"
UNSPECIFIED = "unspecified"
"""the specimen of an upload that names only its patient"""
MAX_ID_CHARS = 64
MAX_SLIDE_CHARS = 200

_ENCODED_WORD = re.compile(r"=\?[^?]+\?[bBqQ]\?[^?]*\?=")


@dataclass(frozen=True, slots=True)
class Unidentified:
    """Why an upload names no patient; the sentence holds neither key nor identifier."""

    reason: str


def identify(key: str, metadata: Mapping[str, str], pattern: KeyPattern) -> ScanIdentity | Unidentified:
    """Return the identity of an upload, or why it has none.

    `metadata`: user metadata of the object, names lower-case without `x-amz-meta-`, values as the server
    returned them. Metadata takes precedence over the key; if they contradict each other, there is no
    identity.
    """
    try:
        from_metadata = {name: _metadata_id(metadata, name) for name in (META_PATIENT, META_SPECIMEN)}
    except _Unreadable as error:
        return Unidentified(f"the object's metadata {error}")
    try:
        from_key = _from_key(key, pattern)
    except _Unreadable as error:
        if from_metadata[META_PATIENT] is None:
            return Unidentified(f"the object's key {error}, and its metadata names no patient")
        from_key = {}
    return _combined(from_metadata, from_key, key)


def priority_of(metadata: Mapping[str, str]) -> Priority:
    """Return STAT if the metadata say so, else ROUTINE."""
    priority = metadata.get(META_PRIORITY, "").strip().lower()
    return Priority.STAT if priority == Priority.STAT else Priority.ROUTINE


def metadata_for(patient: str, specimen: str | None, priority: Priority) -> dict[str, str]:
    """Return ASCII user metadata from which `identify` and `priority_of` read these values."""
    metadata = {META_PATIENT: _encoded(patient)}
    if specimen is not None:
        metadata[META_SPECIMEN] = _encoded(specimen)
    if priority is not Priority.ROUTINE:
        metadata[META_PRIORITY] = priority.value
    return metadata


def checked_id(text: str) -> str:
    """Return a patient's or specimen's identifier in NFC.

    Raises: UsageError, where the text cannot be an identifier.
    """
    composed = unicodedata.normalize("NFC", text)
    fault = _fault(composed, MAX_ID_CHARS)
    if fault is not None:
        raise UsageError(f"the identifier {fault}", code="identifier_invalid")
    return composed


class _Unreadable(Exception):
    """What is wrong with a key or with metadata, worded as the end of a sentence."""


def _combined(
    from_metadata: Mapping[str, str | None], from_key: Mapping[str, str], key: str
) -> ScanIdentity | Unidentified:
    pairs = {"patient": from_metadata[META_PATIENT], "specimen": from_metadata[META_SPECIMEN]}
    for name, value in pairs.items():
        if value is not None and name in from_key and from_key[name] != value:
            return Unidentified(f"the object's metadata and its key name different {name}s")
    patient = pairs["patient"] or from_key.get("patient")
    if patient is None:
        return Unidentified("neither the object's key nor its metadata names a patient")
    return ScanIdentity(
        patient=patient,
        specimen=pairs["specimen"] or from_key.get("specimen") or UNSPECIFIED,
        slide=from_key.get("slide") or _slide_of(key),
    )


def _from_key(key: str, pattern: KeyPattern) -> dict[str, str]:
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise _Unreadable("has an empty part, or one that points to another folder")
    match = pattern.expression.fullmatch(key)
    if match is None:
        raise _Unreadable("does not follow the naming pattern")
    from_key = {name: value for name, value in match.groupdict().items() if name != "ext"}
    limits = {"slide": MAX_SLIDE_CHARS}
    return {name: _checked(value, limits.get(name, MAX_ID_CHARS)) for name, value in from_key.items()}


def _metadata_id(metadata: Mapping[str, str], name: str) -> str | None:
    value = metadata.get(name, "")
    return _checked(_decoded(value), MAX_ID_CHARS) if value.strip() else None


def _checked(text: str, max_chars: int) -> str:
    composed = unicodedata.normalize("NFC", text)
    fault = _fault(composed, max_chars)
    if fault is not None:
        raise _Unreadable(f"holds an identifier that {fault}")
    return composed


def _fault(composed: str, max_chars: int) -> str | None:
    """Return what is wrong with an identifier, as the end of a sentence about it."""
    if not composed:
        return "is empty"
    if composed != composed.strip():
        return "begins or ends with a space"
    if len(composed) > max_chars:
        return f"has more than {max_chars} characters"
    if any(unicodedata.category(char).startswith("C") for char in composed):
        return "has control or invisible characters"
    if composed in (".", "..") or "/" in composed:
        return "is a path"
    return None


def _decoded(value: str) -> str:
    """Return a metadata value as text: RFC 2047 words, percent escapes, or raw UTF-8 in a header."""
    try:
        if _ENCODED_WORD.search(value):
            words = decode_header(value)
            return "".join(
                word if isinstance(word, str) else word.decode(charset or "ascii") for word, charset in words
            )
        # HTTP headers arrive as Latin-1; bytes above ASCII in them can only be UTF-8.
        return unquote(value.encode("latin-1").decode("utf-8"), errors="strict")
    except (UnicodeError, LookupError, HeaderParseError) as error:
        raise _Unreadable("is not in a readable text encoding") from error


def _encoded(value: str) -> str:
    return quote(value, safe="!#$&'()*+,-./:;<>@[]^_`{|}~ ")


def _slide_of(key: str) -> str:
    name = unicodedata.normalize("NFC", key.rsplit("/", 1)[-1])
    stem = name.rsplit(".", 1)[0] or name
    printable = "".join(char for char in stem if not unicodedata.category(char).startswith("C")).strip()
    return printable[:MAX_SLIDE_CHARS] or UNSPECIFIED
