"""Ports: free, different, and the same again where they can be."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.model.errors import DeploymentError
from worker.embedded.free_ports import PortAllocation, is_free

NAMES = ("a", "b", "c")


@pytest.fixture
def taken() -> Iterator[int]:
    """Return a port that is in use."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_every_name_gets_a_free_port_of_its_own(tmp_path: Path) -> None:
    book = PortAllocation(tmp_path / "ports.json", {})
    book.assign(NAMES)
    ports = {book[name] for name in NAMES}
    assert len(ports) == 3
    assert all(is_free(port) for port in ports)


def test_ports_are_remembered(tmp_path: Path) -> None:
    first = PortAllocation(tmp_path / "ports.json", {})
    first.assign(NAMES)
    second = PortAllocation(tmp_path / "ports.json", {})
    second.assign(NAMES)
    assert [second[name] for name in NAMES] == [first[name] for name in NAMES]


def test_a_remembered_port_in_use_is_exchanged(tmp_path: Path, taken: int) -> None:
    (tmp_path / "ports.json").write_text(f'{{"a": {taken}}}')
    book = PortAllocation(tmp_path / "ports.json", {})
    book.assign(["a"])
    assert book["a"] != taken


def test_replacing_gives_another_port_and_leaves_the_others(tmp_path: Path) -> None:
    book = PortAllocation(tmp_path / "ports.json", {})
    book.assign(NAMES)
    before = {name: book[name] for name in NAMES}
    book.replace(["a"])
    assert book["a"] != before["a"]
    assert (book["b"], book["c"]) == (before["b"], before["c"])


def test_a_fixed_port_is_kept_or_refused(tmp_path: Path, taken: int) -> None:
    book = PortAllocation(tmp_path / "ports.json", {"a": taken})
    with pytest.raises(DeploymentError, match=f"port {taken} for a is in use"):
        book.assign(["a"])
    with pytest.raises(DeploymentError, match=f"port {taken} is in use"):
        book.replace(["a"])


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": "x"}', "null"])
def test_a_damaged_note_costs_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "ports.json").write_text(text)
    book = PortAllocation(tmp_path / "ports.json", {})
    book.assign(["a"])
    assert is_free(book["a"])
