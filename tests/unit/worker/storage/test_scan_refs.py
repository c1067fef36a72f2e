from datetime import UTC, datetime

import pytest

from db.records import ScanRef
from worker.storage.object_store import StoredObject
from worker.storage.scan_refs import scan_ref_of, stored_object_of


@pytest.mark.parametrize(("version", "named"), [("v1", "v1"), (None, "abc")])
def test_an_object_becomes_a_reference_and_back(version, named):
    stored = StoredObject("P1/S1/a.svs", "abc", 7, None, version)
    ref = scan_ref_of("scans", stored)
    assert ref == ScanRef("scans", "P1/S1/a.svs", named, 7, "abc")
    assert stored_object_of(ref) == stored


def test_a_reference_does_not_depend_on_when_the_object_was_written():
    at = datetime(2026, 1, 1, tzinfo=UTC)
    old, new = (StoredObject("a", "abc", 7, when, None) for when in (None, at))
    assert scan_ref_of("scans", old) == scan_ref_of("scans", new)
