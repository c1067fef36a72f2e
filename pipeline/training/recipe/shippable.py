"""Limits of a bundle: weights trained on openly licensed data only, and a size for small workers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.bundle.manifest import MemberEntry
from pipeline.model.errors import UsageError
from pipeline.training.data.sources import Source

FAST_SEGMENTER_PARAMETERS = 6_000_000
CLASSIFIER_PARAMETERS = 12_000_000
"""of all members together"""
BUNDLE_BYTES = 36_000_000
"""of all weights together"""


def require_shippable(recipe: str, sources: Sequence[Source]) -> None:
    """Return where every data set of a recipe may be shipped. Raises: UsageError, naming one that may not."""
    for source in sources:
        if not source.shippable:
            raise UsageError(
                f"'{recipe}' was trained on '{source.folder}' ({source.licence}): no bundle may contain it.",
                code="not_shippable",
            )


def require_light(kind: str, members: Sequence[MemberEntry], most: int) -> None:
    """Return where the members have at most `most` parameters together. Raises: UsageError, with theirs."""
    total = sum(member.parameters for member in members)
    if total > most:
        names = ", ".join(f"{member.name} {member.parameters:,}" for member in members)
        raise UsageError(
            f"The {kind} may have at most {most:,} parameters, not {total:,} ({names}).",
            code="bundle_too_large",
        )


def require_small(files: Sequence[Path]) -> None:
    """Return where the files fit into a bundle. Raises: UsageError, with the size of each."""
    sizes_bytes = {file.name: file.stat().st_size for file in files}
    total_bytes = sum(sizes_bytes.values())
    if total_bytes > BUNDLE_BYTES:
        named = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in sizes_bytes.items())
        raise UsageError(
            f"A bundle's weights may have at most {BUNDLE_BYTES / 1e6:.0f} MB, "
            f"not {total_bytes / 1e6:.1f} ({named}).",
            code="bundle_too_large",
        )
