"""A training that is killed, for real, ends with the weights of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from pipeline.training.command import train
from pipeline.training.recipe.recipes import read_recipe
from tests.support.dataset_trees import cnmc_tree

pytestmark = pytest.mark.long

REPOSITORY = Path(__file__).parents[3]
CHILD = """
import sys
from pathlib import Path
from pipeline.training.command import train

recipe, data, run, network, epoch = sys.argv[1:]

class Stops:
    def stepped(self, name, at, step, steps):
        if (name, at, step) == (network, int(epoch), 2):
            print("there", flush=True)
            sys.stdin.read()

    def finished_epoch(self, *_):
        return

    def says(self, sentence):
        return

train(Path(recipe), Path(data), Path(run), Stops())
"""


class Silent:
    def stepped(self, *_: object) -> None:
        return

    def finished_epoch(self, *_: object) -> None:
        return

    def says(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cnmc_tree(tmp_path_factory.mktemp("cnmc"))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recipe with all that a checkpoint has to hold: dropout, norms, averages, a falling rate."""
    small = {
        "members": 'members = ["network-2", "mobilenet-v2"]', "side_px": "side_px = 32",
        "epochs": "epochs = 3", "batch": "batch = 8",
    }  # fmt: skip
    lines = read_recipe("all-vs-normal").text.splitlines()
    file = tmp_path_factory.mktemp("recipe") / "small.toml"
    file.write_text("\n".join(small.get(line.split(" = ")[0], line) for line in lines) + "\n")
    return file


@pytest.fixture(scope="module")
def uninterrupted(data: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    run = tmp_path_factory.mktemp("runs") / "whole"
    return [one.weights_sha256 for one in train(recipe, data, run, Silent())]


def _killed(recipe: Path, data: Path, run: Path, network: str, epoch: int) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(recipe), str(data), str(run), network, str(epoch)],
        cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin, child.stdout:
        assert child.stdout.readline() == "there\n"
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait(30) == -signal.SIGKILL


@pytest.mark.parametrize(("network", "epoch"), [("network-2", 0), ("mobilenet-v2", 2)])
def test_a_killed_run_ends_with_the_same_weights(
    network: str, epoch: int, data: Path, recipe: Path, uninterrupted: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    _killed(recipe, data, run, network, epoch)
    left = json.loads((run / network / "history.json").read_text()) if epoch else []
    assert len(left) == epoch
    resumed = train(recipe, data, run, Silent())
    assert [one.weights_sha256 for one in resumed] == uninterrupted
    assert [len(one.history) for one in resumed] == [3, 3]


def test_a_half_written_file_of_weights_does_no_harm(
    data: Path, recipe: Path, uninterrupted: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    _killed(recipe, data, run, "network-2", 1)
    (run / "network-2" / "best.safetensors.part").write_bytes(b"half")
    (run / "network-2" / "last.pt.part").write_bytes(b"half")
    assert [one.weights_sha256 for one in train(recipe, data, run, Silent())] == uninterrupted
