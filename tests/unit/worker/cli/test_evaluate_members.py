"""`evaluate --members`: ensembles of several seeds, from their run folders to one verdict."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from pipeline.networks.classifiers import LeukocyteClassifier  # noqa: E402
from pipeline.training.recipe.recipes import ClassifierRecipe, SegmenterRecipe, parse_recipe, read_recipe  # noqa: E402
from tests.support.drawn_pack import MEMBER_TABLES, DrawnPack  # noqa: E402
from worker.cli import main  # noqa: E402

SMALL = {
    r"^side_px = .*$": "side_px = 32",
    r"^encoder = .*$": 'encoder = "mobilenet-v2"',
    r"^width = .*$": "width = 4",
    r"(?s)^folders = \[.*?\]": 'folders = ["zheng_d1_jtsc", "pbc_barcelona"]',
    r"(?s)^members = \[.*?\]": 'members = ["mobilenet-v2", "efficientnet-lite0"]',
    MEMBER_TABLES.pattern: "",
}


def _run(folder: Path, name: str, seed: int) -> Path:
    """A run whose networks are as they were drawn."""
    text = read_recipe(name).text
    for pattern, small in SMALL.items():
        text = re.sub(pattern, small, text, flags=re.MULTILINE)
    recipe = parse_recipe(text)
    torch.manual_seed(seed)
    if isinstance(recipe, ClassifierRecipe):
        networks = {
            one.name: LeukocyteClassifier(one.backbone, colours=one.colours) for one in recipe.members
        }
    else:
        assert isinstance(recipe, SegmenterRecipe)
        networks = {recipe.name: recipe.network.build()}
    for network, module in networks.items():
        (folder / network).mkdir(parents=True)
        save_file(module.state_dict(), folder / network / "best.safetensors")
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a pack of which one masked cell of val shows no nucleus."""
    pack = DrawnPack(tmp_path_factory.mktemp("pack"))
    for number, label in enumerate(("neutrophil", "lymphocyte", "monocyte", "basophil")):
        pack.add("zheng_d1_jtsc", label, "val", mask_path=f"masks/{number:03}.png")
        pack.add("pbc_barcelona", label, "val")
    bare = pack.root / "zheng_d1_jtsc" / "masks" / "003.png"
    mask = cv2.imread(str(bare), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(bare), np.minimum(mask, 128))
    return pack.write()


@pytest.fixture
def told(
    pack: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[dict[str, object]]]:
    """Return what asks for the comparison of runs, and reads its JSON."""

    def ask(*runs: Path) -> list[dict[str, object]]:
        members = [part for run in runs for part in ("--members", str(run))]
        monkeypatch.setattr(sys, "argv", ["leukoflow", "evaluate", "--data", str(pack), "--json", *members])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        return [
            {"seed": part["seed"], **part["comparison"]}
            for part in json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
        ]

    return ask


def test_three_seeds_of_classifiers_are_compared_one_by_one_and_together(
    told: Callable[..., list[dict[str, object]]], tmp_path: Path
) -> None:
    runs = [_run(tmp_path / str(seed), "ensemble-leukocytes", seed) for seed in (1, 2, 3)]
    parts = [part for part in told(*runs) if part["measure"] == "log_probability"]
    assert {part["seed"] for part in parts} == {"1", "2", "3", "all seeds"}
    assert {part["data_set"] for part in parts} == {"zheng_d1_jtsc", "pbc_barcelona", "all"}
    single = {part["seed"]: part for part in parts if part["data_set"] == "all"}
    together = single.pop("all seeds")
    assert (together["seeds"], together["n"], together["groups"]) == (3, 8, 8)
    assert together["best"] == [name for part in single.values() for name in part["best"]]
    assert [figure["name"] for figure in together["members"]] == ["mobilenet-v2", "efficientnet-lite0"]
    differences = [part["difference"]["value"] for part in single.values()]
    assert together["difference"]["value"] == pytest.approx(np.mean(differences))
    assert together["difference"]["low"] < together["difference"]["value"] < together["difference"]["high"]


def test_segmenters_of_two_seeds_make_two_ensembles(
    told: Callable[..., list[dict[str, object]]], tmp_path: Path
) -> None:
    runs = [
        _run(tmp_path / f"{name}-{seed}", name, seed) for name in ("light-unet", "cenet") for seed in (1, 2)
    ]
    parts = told(*runs)
    assert {(part["measure"], part["seed"]) for part in parts} == {
        (measure, seed) for measure in ("cell_dice", "nucleus_dice") for seed in ("1", "2", "all seeds")
    }
    assert {part["data_set"] for part in parts} == {"zheng_d1_jtsc"}
    assert all(len(part["members"]) == 2 for part in parts)
    counted = {part["measure"]: part["n"] for part in parts}
    assert counted == {"cell_dice": 4, "nucleus_dice": 3}, "a mask without a nucleus tells nothing of one"
