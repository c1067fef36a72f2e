"""What the command line changes of a recipe becomes part of its text, and is read again from there."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from pipeline.model.errors import UsageError
from pipeline.training.recipe.overrides import NO_OVERRIDES, Overrides, overridden
from pipeline.training.recipe.recipes import CellRecipe, PictureRecipe, parse_recipe, read_recipe

ENSEMBLE = "ensemble-leukocytes"


def test_without_overrides_the_text_is_the_files() -> None:
    assert read_recipe(ENSEMBLE, NO_OVERRIDES).text == read_recipe(ENSEMBLE).text


def test_seed_and_epochs_replace_the_recipes_and_change_its_digest() -> None:
    changed = read_recipe(ENSEMBLE, Overrides(seed=3, epochs=2))
    assert (changed.seed, changed.schedule.epochs) == (3, 2)
    assert changed.digest != read_recipe(ENSEMBLE).digest
    assert parse_recipe(changed.text) == changed


def test_later_overrides_replace_earlier_ones_and_leave_the_others() -> None:
    first = read_recipe(ENSEMBLE, Overrides(seed=3, epochs=2))
    second = parse_recipe(overridden(first.text, Overrides(epochs=5)))
    assert (second.seed, second.schedule.epochs) == (3, 5)
    assert second.text.count("[overrides]") == 1


def test_overrides_before_other_tables_are_found() -> None:
    text = read_recipe(ENSEMBLE).text.replace("[input]", "[overrides]\nseed = 4\n\n[input]")
    changed = parse_recipe(overridden(text, Overrides(epochs=2)))
    assert (changed.seed, changed.schedule.epochs) == (4, 2)
    assert isinstance(changed, CellRecipe)
    assert changed.input.side_px > 0


def test_a_set_can_be_left_out() -> None:
    whole, without = read_recipe(ENSEMBLE), read_recipe(ENSEMBLE, Overrides(leave_out=("bccd", "draaslan")))
    assert isinstance(whole, CellRecipe)
    assert isinstance(without, CellRecipe)
    missing = {source.folder for source in whole.sources} - {source.folder for source in without.sources}
    assert missing == {"bccd", "draaslan"}


def test_a_recipe_can_leave_sets_out_itself() -> None:
    text = 'leave_out = ["bccd"]\n' + read_recipe(ENSEMBLE).text
    recipe = parse_recipe(text)
    assert isinstance(recipe, CellRecipe)
    assert "bccd" not in {source.folder for source in recipe.sources}


def test_the_data_set_can_be_another() -> None:
    recipe = read_recipe("paper-network-2", Overrides(folders=("all_idb2",), fold="2/5"))
    assert isinstance(recipe, PictureRecipe)
    assert recipe.folders == ("all_idb2",)
    assert recipe.fold is not None
    assert (recipe.fold.number, recipe.fold.count) == (2, 5)


@pytest.mark.parametrize(
    ("recipe", "overrides", "told"),
    [
        (ENSEMBLE, Overrides(leave_out=("nowhere",)), "nowhere"),
        ("paper-network-2", Overrides(leave_out=("cnmc",)), "left out"),
        (ENSEMBLE, Overrides(fold="1/5"), "whole pictures"),
        ("paper-network-2", Overrides(fold="6/5"), "6/5"),
        ("paper-network-2", Overrides(fold="1/1"), "1/1"),
        (ENSEMBLE, Overrides(epochs=0), "one epoch"),
        (ENSEMBLE, Overrides(folders=("research_only/all_idb2",)), "all_idb2"),
    ],
)
def test_what_cannot_be_is_a_sentence(recipe: str, overrides: Overrides, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        read_recipe(recipe, overrides)


def test_an_unknown_override_is_a_sentence() -> None:
    with pytest.raises(UsageError, match="batch"):
        parse_recipe(read_recipe(ENSEMBLE).text + "\n[overrides]\nbatch = 3\n")
