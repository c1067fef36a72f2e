"""The loop on a task small enough to see through: which of two halves of a picture is brighter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from pipeline.model.errors import UsageError  # noqa: E402
from pipeline.training.fit.batches import Batch  # noqa: E402
from pipeline.training.fit.training_loop import BEST_FILE, StepOutcome, TrainableNetwork, Validation, fit  # noqa: E402
from pipeline.training.recipe.recipes import Arithmetic, read_recipe  # noqa: E402

SCHEDULE = replace(
    read_recipe("light-unet").schedule,
    epochs=4,
    samples_per_epoch=64,
    batch=16,
    learning_rate=0.02,
    head_learning_rate=0.05,
    ema_decay=0.5,
    patience=4,
)


class Silent:
    def stepped(self, *_: object) -> None:
        return

    def finished_epoch(self, *_: object) -> None:
        return

    def says(self, *_: object) -> None:
        return


class CutIn(Silent):
    """Stops the training in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def stepped(self, *place: object) -> None:
        _, epoch, step, _ = place
        if epoch == self._epoch and step == 2:
            raise InterruptedError


class Halves:
    """Targets follow from the pixels, so that it can be learnt."""

    def __init__(self, scores: tuple[float, ...] = ()) -> None:
        self._scores = list(scores)

    def batches(self, seed: int, epoch: int) -> Iterator[Batch]:
        source = torch.Generator().manual_seed(1000 * seed + epoch)
        for _ in range(4):
            rgb = torch.randint(0, 256, (16, 2, 2, 3), dtype=torch.uint8, generator=source)
            left, right = rgb[:, :, 0].float().sum(dim=(1, 2)), rgb[:, :, 1].float().sum(dim=(1, 2))
            yield Batch(rgb, (left > right).long())

    def assess(self, logits: torch.Tensor, batch: Batch) -> StepOutcome:
        right = (logits.argmax(dim=1) == batch.target).float().mean()
        return StepOutcome(torch.nn.functional.cross_entropy(logits, batch.target), float(right))

    def validate(self, network: torch.nn.Module) -> Validation:
        outcomes = [self.assess(network(batch.rgb), batch) for batch in self.batches(0, 999)]
        accuracy = sum(outcome.accuracy for outcome in outcomes) / len(outcomes)
        loss = sum(float(outcome.loss) for outcome in outcomes) / len(outcomes)
        return Validation(loss, self._scores.pop(0) if self._scores else accuracy)


class Flat(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(12, 8), torch.nn.ReLU(), torch.nn.Dropout(0.1))
        self.head = torch.nn.Linear(8, 2)

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(rgb.flatten(1).float() / 255 - 0.5))


def _trainable() -> TrainableNetwork:
    torch.manual_seed(3)
    network = Flat()
    return TrainableNetwork("flat", 11, network, network.body)


def _weights(file: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


def test_it_learns_and_leaves_its_history(tmp_path: Path) -> None:
    history = fit(_trainable(), Halves(), replace(SCHEDULE, epochs=12, patience=12), tmp_path, Silent())
    assert history[-1].val_accuracy > 0.8
    assert history[-1].val_loss < history[0].val_loss
    noted = json.loads((tmp_path / "history.json").read_text())
    assert [line["epoch"] for line in noted] == list(range(12))


def test_the_best_epoch_is_kept_and_patience_ends_the_training(tmp_path: Path) -> None:
    trainable = _trainable()
    schedule = replace(SCHEDULE, epochs=9, patience=2)
    history = fit(trainable, Halves((0.5, 0.9, 0.7, 0.8, 1.0)), schedule, tmp_path / "long", Silent())
    assert [record.val_accuracy for record in history] == [0.5, 0.9, 0.7, 0.8]
    kept = _weights(tmp_path / "long" / BEST_FILE)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in trainable.network.state_dict().items())
    fit(_trainable(), Halves((0.5, 0.9, 0.4, 0.3)), schedule, tmp_path / "same", Silent())
    same = _weights(tmp_path / "same" / BEST_FILE)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in same.items())


def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = fit(_trainable(), Halves(), SCHEDULE, tmp_path / "whole", Silent())
    with pytest.raises(InterruptedError):
        fit(_trainable(), Halves(), SCHEDULE, tmp_path / "broken", CutIn(2))
    resumed = fit(_trainable(), Halves(), SCHEDULE, tmp_path / "broken", Silent())
    assert [record.val_loss for record in resumed] == [record.val_loss for record in whole]
    left, right = (torch.load(tmp_path / run / "last.pt", weights_only=True) for run in ("whole", "broken"))
    assert all(torch.equal(left["network"][name], right["network"][name]) for name in left["network"])


class Noting(Flat):
    """Notes what its products are computed in, learning (True) and not."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[bool, torch.dtype]] = set()

    def forward(self, rgb: torch.Tensor) -> torch.Tensor:
        logits = super().forward(rgb)
        self.seen.add((self.training, logits.dtype))
        return logits


def test_it_learns_in_half_the_bits_and_is_validated_in_all(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = Noting()
    schedule = replace(SCHEDULE, epochs=12, patience=12, arithmetic=Arithmetic.BFLOAT16)
    history = fit(TrainableNetwork("flat", 11, network, network.body), Halves(), schedule, tmp_path, Silent())
    assert network.seen == {(True, torch.bfloat16), (False, torch.float32)}
    assert history[-1].val_accuracy > 0.8
    assert {tensor.dtype for tensor in _weights(tmp_path / BEST_FILE).values()} == {torch.float32}


class Diverging(Halves):
    """The loss is no number in the second epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._losses = [0.5, float("nan")]

    def validate(self, _: torch.nn.Module) -> Validation:
        return Validation(self._losses.pop(0), 0.5)


def test_a_training_that_diverges_is_one_sentence_and_leaves_no_history_of_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="flat diverged in epoch 2"):
        fit(_trainable(), Diverging(), SCHEDULE, tmp_path, Silent())
    (record,) = json.loads((tmp_path / "history.json").read_text(), parse_constant=pytest.fail)
    assert record["val_loss"] == 0.5
