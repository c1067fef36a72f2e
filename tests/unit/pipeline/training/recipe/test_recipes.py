"""Recipes say everything, in the right types, or are refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from pipeline.model.errors import UsageError
from pipeline.model.spec import PipelineSpec
from pipeline.training.recipe.recipes import (
    ClassifierRecipe,
    SegmenterRecipe,
    parse_recipe,
    read_recipe,
)
from tests.support.drawn_pack import MEMBER_TABLES

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
        ('"mobilenet-v2-light", ', '"../mobilenet-v2-light", '),
        ('"bccd"', '"cnmc_subset"'),
        ("seed = ", "seed = ["),
    ],
)
def test_a_wrong_recipe_is_a_sentence(old: str, new: str) -> None:
    assert old in TEXT
    with pytest.raises(UsageError):
        parse_recipe(TEXT.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("seed = ", "sead = ", "The recipe has no 'seed'."),
        ("batch = 32", 'batch = "many"', "The recipe's 'schedule.batch' is wrong: input should be"),
        ("batch = 32", "batch = 32\nbatches = 3", "The recipe has no use for 'schedule.batches'."),
        ("batch = 32", 'batch = 32\noptimizer = "sgd"', "'sgd' is not one of the recipe's choices for"),
        ('kind = "classifier"', 'kind = "oracle"', "'oracle' is not one of the recipe's choices for 'kind'"),
        ("dropout = ", "drop_out = 0.1\ndropout = ", "The recipe has no use for 'drop_out'."),
        ("[input]", "[overrides]\nseed = true\n\n[input]", "The recipe's 'seed' is wrong: input should be"),
        ("name = ", "name = = ", "The recipe is no TOML: "),
    ],
)
def test_the_sentence_names_the_key(old: str, new: str, sentence: str) -> None:
    assert old in TEXT
    with pytest.raises(UsageError) as caught:
        parse_recipe(TEXT.replace(old, new, 1))
    assert caught.value.sentence.startswith(sentence)
    assert "\n" not in caught.value.sentence


def test_a_missing_recipe_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recipe 'none'"):
        read_recipe("none")
    with pytest.raises(UsageError, match="no recipe"):
        read_recipe(tmp_path / "none.toml")


def _ensemble(tables: str) -> ClassifierRecipe:
    text = MEMBER_TABLES.sub("", TEXT)
    assert "[backbones]" not in text
    recipe = parse_recipe(text.replace("[input]", f"{tables}\n[input]"))
    assert isinstance(recipe, ClassifierRecipe)
    return recipe


def test_a_backbone_may_come_twice_under_names_of_its_own() -> None:
    tables = '[backbones]\nmobilenet-v2-stain = "mobilenet-v2"\nmobilenet-v2-light = "efficientnet-lite0"\n'
    tables += 'mobilenet-v2-stain-2 = "mobilenet-v2"\n[colours]\nmobilenet-v2-stain-2 = "stain"\n'
    members = {one.name: (str(one.backbone), str(one.colours)) for one in _ensemble(tables).members}
    assert members == {
        "mobilenet-v2-stain": ("mobilenet-v2", "light"),
        "mobilenet-v2-light": ("efficientnet-lite0", "light"),
        "mobilenet-v2-stain-2": ("mobilenet-v2", "stain"),
    }


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ("", "'mobilenet-v2-stain' is not one of"),
        ('[backbones]\nmobilenet-v2-stian = "mobilenet-v2"\n', "which is no member"),
        ('[colours]\nresnet = "stain"\n', "which is no member"),
    ],
)
def test_a_member_without_backbone_and_a_table_without_member_are_sentences(
    tables: str, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        _ensemble(tables)
