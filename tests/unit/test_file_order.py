"""The list of slow test files names files that are there, once each."""

from __future__ import annotations

from pathlib import Path

from tests.support.file_order import SLOWEST_FIRST

ROOT = Path(__file__).resolve().parents[2]


def test_the_slowest_files_are_there_and_listed_once():
    assert [file for file in SLOWEST_FIRST if not (ROOT / file).is_file()] == []
    assert len(set(SLOWEST_FIRST)) == len(SLOWEST_FIRST)
