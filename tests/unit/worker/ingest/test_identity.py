"""Whose scan is it: by metadata, by key, or not at all; never by a guess."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.errors import UsageError
from worker.ingest.identification import (
    MAX_ID_CHARS,
    UNSPECIFIED,
    Priority,
    Unidentified,
    checked_id,
    identify,
    metadata_for,
    priority_of,
)
from worker.key_pattern import KeyPattern, ScanIdentity

PATTERN = KeyPattern.parse("<patient>/<specimen>/<slide>.<ext>")
IDENTIFIERS = st.text(
    alphabet=st.characters(exclude_categories=["C", "Z"], exclude_characters="/"), min_size=1, max_size=20
).filter(lambda text: text not in (".", "..") and unicodedata.normalize("NFC", text) == text)


@pytest.mark.parametrize(
    ("key", "identity"),
    [
        ("P1/S1/slide.png", ScanIdentity("P1", "S1", "slide")),
        ("P 1/Ä/a.b.c.svs", ScanIdentity("P 1", "Ä", "a.b.c")),
        ("P1/S1/.png.tiff", ScanIdentity("P1", "S1", ".png")),
        ("病理/1/2.jpg", ScanIdentity("病理", "1", "2")),
    ],
)
def test_a_key_of_the_pattern_names_patient_specimen_and_slide(key: str, identity: ScanIdentity) -> None:
    assert identify(key, {}, PATTERN) == identity


@pytest.mark.parametrize(
    "key",
    [
        "slide.png",
        "P1/slide.png",
        "P1/S1/more/slide.png",
        "P1/S1/no-extension",
        "/S1/slide.png",
        "P1//slide.png",
        "P1/S1/",
        "../S1/slide.png",
        "P1/../slide.png",
        "P1/./slide.png",
        " /S1/slide.png",
        "P1 /S1/slide.png",
        "P\x001/S1/slide.png",
        "P\u202e1/S1/slide.png",
        "P\u200b1/S1/slide.png",
        "P1\n/S1/slide.png",
        "P" * (MAX_ID_CHARS + 1) + "/S1/slide.png",
        "P1/" + "S" * (MAX_ID_CHARS + 1) + "/slide.png",
        "",
    ],
)
def test_a_key_that_does_not_follow_the_pattern_names_nobody(key: str) -> None:
    assert isinstance(identify(key, {}, PATTERN), Unidentified)


def test_metadata_name_the_patient_where_the_key_does_not() -> None:
    metadata = {"patient-id": "P1", "specimen-id": "S1"}
    assert identify("dump/0001.png", metadata, PATTERN) == ScanIdentity("P1", "S1", "0001")
    assert identify("../0001.png", metadata, PATTERN) == ScanIdentity("P1", "S1", "0001")


def test_metadata_without_a_specimen_leave_it_to_the_key_or_unspecified() -> None:
    assert identify("0001.png", {"patient-id": "P1"}, PATTERN) == ScanIdentity("P1", UNSPECIFIED, "0001")
    assert identify("P1/S1/0001.png", {"patient-id": "P1"}, PATTERN) == ScanIdentity("P1", "S1", "0001")


def test_a_blank_metadata_field_says_nothing() -> None:
    assert identify("P1/S1/1.png", {"patient-id": " ", "specimen-id": ""}, PATTERN) == ScanIdentity(
        "P1", "S1", "1"
    )


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"patient-id": "P2"}, "the object's metadata and its key name different patients"),
        ({"specimen-id": "S2"}, "the object's metadata and its key name different specimens"),
    ],
)
def test_metadata_that_contradict_the_key_name_nobody(metadata: dict[str, str], reason: str) -> None:
    assert identify("P1/S1/1.png", metadata, PATTERN) == Unidentified(reason)


@pytest.mark.parametrize(
    "value",
    ["M%C3%BCller", "=?UTF-8?B?TcO8bGxlcg==?=", "=?utf-8?q?M=C3=BCller?=", "MÃ¼ller", "Mu%CC%88ller"],
)
def test_metadata_are_read_in_every_encoding_that_servers_and_clients_use(value: str) -> None:
    assert identify("1.png", {"patient-id": value}, PATTERN) == ScanIdentity("Müller", UNSPECIFIED, "1")


@pytest.mark.parametrize(
    "value",
    [
        "M\xfcller",
        "%FF%FE",
        "=?nonsense?B?TcO8bGxlcg==?=",
        "=?utf-8?B?/////w==?=",
        "..",
        "a/b",
        "a%2Fb",
        "%00",
        "x%0Ay",
        "x" * (MAX_ID_CHARS + 1),
    ],
)
def test_metadata_that_cannot_be_read_name_nobody_even_beside_a_good_key(value: str) -> None:
    assert isinstance(identify("P1/S1/1.png", {"patient-id": value}, PATTERN), Unidentified)


def test_composed_and_decomposed_letters_are_the_same_patient() -> None:
    metadata = {"patient-id": "Mu%CC%88ller"}
    assert identify("Müller/S1/1.png", metadata, PATTERN) == ScanIdentity("Müller", "S1", "1")


@given(key=st.text(max_size=80), patient=st.text(max_size=80))
def test_nothing_breaks_it_and_no_reason_tells_the_key_or_the_patient(key: str, patient: str) -> None:
    answer = identify(key, {"patient-id": patient}, PATTERN)
    if isinstance(answer, Unidentified):
        assert not any(len(text) > 12 and text in answer.reason for text in (key, patient))
    else:
        assert 0 < len(answer.patient) <= MAX_ID_CHARS
        assert answer.slide


@given(patient=IDENTIFIERS, specimen=IDENTIFIERS)
def test_what_submit_writes_is_what_the_watcher_reads(patient: str, specimen: str) -> None:
    metadata = metadata_for(patient, specimen, Priority.STAT)
    assert all(value.isascii() for value in metadata.values())
    assert identify("x.png", metadata, PATTERN) == ScanIdentity(patient, specimen, "x")
    assert priority_of(metadata) is Priority.STAT
    identity = ScanIdentity(patient, specimen, "slide")
    assert identify(PATTERN.key_of(identity, "png"), {}, PATTERN) == identity


@pytest.mark.parametrize(
    ("metadata", "priority"),
    [
        ({"priority": "stat"}, Priority.STAT),
        ({"priority": " STAT "}, Priority.STAT),
        ({"priority": "routine"}, Priority.ROUTINE),
        ({"priority": "soon"}, Priority.ROUTINE),
        ({}, Priority.ROUTINE),
    ],
)
def test_priority_is_stat_only_where_it_is_said(metadata: dict[str, str], priority: Priority) -> None:
    assert priority_of(metadata) is priority


def test_other_patterns() -> None:
    flat = KeyPattern.parse("<patient>_<slide>.<ext>")
    assert identify("P1_2.png", {}, flat) == ScanIdentity("P1", UNSPECIFIED, "2")
    deep = KeyPattern.parse("incoming/<*>/<patient>/<slide>.<ext>")
    assert identify("incoming/2026-11-22/P1/2.png", {}, deep) == ScanIdentity("P1", UNSPECIFIED, "2")
    assert isinstance(identify("other/2026-11-22/P1/2.png", {}, deep), Unidentified)


@pytest.mark.parametrize("text", ["", "<slide>.<ext>", "<patient>/<patient>", "<patient>/<name>.<ext>"])
def test_a_pattern_that_cannot_name_a_patient_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="key pattern cannot be used"):
        KeyPattern.parse(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is empty"),
        (" P1", "begins or ends with a space"),
        ("a/b", "is a path"),
        ("..", "is a path"),
        ("P\x07", "has control or invisible characters"),
        ("x" * 65, "has more than 64 characters"),
    ],
)
def test_an_identifier_that_is_none_is_a_usage_error_that_says_why(text: str, fault: str) -> None:
    with pytest.raises(UsageError) as raised:
        checked_id(text)
    assert raised.value.sentence == f"the identifier {fault}"
    told = identify("1.png", {"patient-id": text}, PATTERN)
    if text:
        assert told == Unidentified(f"the object's metadata holds an identifier that {fault}")


def test_an_identifier_is_composed() -> None:
    assert checked_id("Mu\u0308ller") == "Müller"
