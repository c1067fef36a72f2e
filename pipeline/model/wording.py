"""Words that sentences for people share."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, which is English and takes an s: `1 leukocyte`, `2 leukocytes`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
