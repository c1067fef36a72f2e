"""Recipes say everything, in the right types, or are refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from pipeline.errors import UsageError
from pipeline.spec import PipelineSpec
from pipeline.training.recipes import (
    ClassifierRecipe,
    SegmenterRecipe,
    parse_recipe,
    read_recipe,
)

TEXT = read_recipe("ensemble-leukocytes").text


def test_the_shipped_recipes_are_read() -> None:
    unet, ensemble = read_recipe("light-unet"), read_recipe("ensemble-leukocytes")
    assert isinstance(unet, SegmenterRecipe)
    assert isinstance(ensemble, ClassifierRecipe)
    assert unet.input.mpp_um == PipelineSpec().working_mpp_um
    assert len(ensemble.members) == 3
    assert unet.digest != ensemble.digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('kind = "classifier"', 'kind = "oracle"'),
        ("seed = ", "sead = "),
        ("batch = 32", 'batch = "many"'),
        ("batch = 32", "batch = 32\nbatches = 3"),
        ("batch = 32", "batch = true"),
        ("[augment]", "[augmentation]"),
        ('"mobilenet-v2"', '"resnet-34"'),
        ('"bccd"', '"cnmc_subset"'),
        ("seed = ", "seed = ["),
    ],
)
def test_a_wrong_recipe_is_a_sentence(old: str, new: str) -> None:
    assert old in TEXT
    with pytest.raises(UsageError):
        parse_recipe(TEXT.replace(old, new))


def test_a_missing_recipe_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recipe 'none'"):
        read_recipe("none")
    with pytest.raises(UsageError, match="no recipe"):
        read_recipe(tmp_path / "none.toml")
