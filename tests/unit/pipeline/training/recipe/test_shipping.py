"""What may not be in a bundle is refused with the reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from pipeline.bundle.manifest import MemberEntry
from pipeline.model.errors import UsageError
from pipeline.training.recipe.recipes import SegmenterRecipe, read_recipe
from pipeline.training.recipe.shippable import BUNDLE_BYTES, require_light, require_shippable, require_small


def _member(name: str, parameters: int) -> MemberEntry:
    return MemberEntry(name, f"{name}.onnx", "", parameters, "", "")


def test_the_shipped_recipes_may_be_shipped_and_research_may_not() -> None:
    recipe = read_recipe("light-unet")
    assert isinstance(recipe, SegmenterRecipe)
    require_shippable(recipe.name, recipe.sources)
    research = replace(recipe.sources[0], folder="research_only/all_idb2", shippable=False)
    with pytest.raises(UsageError, match="research_only/all_idb2") as caught:
        require_shippable(recipe.name, (*recipe.sources, research))
    assert caught.value.code == "not_shippable"


def test_parameters_count_together() -> None:
    members = [_member("one", 3_000_000), _member("two", 3_000_000)]
    require_light("classifiers", members, 6_000_000)
    with pytest.raises(UsageError, match="at most 5,999,999 parameters, not 6,000,000") as caught:
        require_light("classifiers", members, 5_999_999)
    assert "two 3,000,000" in caught.value.sentence


def test_files_count_together(tmp_path: Path) -> None:
    files = [tmp_path / "light.onnx", tmp_path / "heavy.onnx"]
    for file, size_bytes in zip(files, (1000, BUNDLE_BYTES - 1000), strict=True):
        with file.open("wb") as sparse:
            sparse.truncate(size_bytes)
    require_small(files)
    with files[0].open("ab") as sparse:
        sparse.write(b"\0")
    with pytest.raises(UsageError, match=r"at most 36 MB, not 36\.0 .*heavy\.onnx 36\.0"):
        require_small(files)
