"""The training loop: learning-rate schedule, averaged weights, the kept epoch, and resumable checkpoints."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.model.errors import UsageError
from pipeline.training.fit.batches import Batch, prefetched
from pipeline.training.fit.progress import EpochRecord, TrainingProgress
from pipeline.training.recipe.recipes import Arithmetic, Kept, LearningRateSchedule, Optimizer, Schedule

BEST_FILE = "best.safetensors"
CHECKPOINT_FILE = "last.pt"
HISTORY_FILE = "history.json"
_KERAS_EPSILON = 1e-7
"""Source: keras.optimizers.Adam, default"""


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """A batch's loss, with its graph, and its accuracy."""

    loss: Tensor
    accuracy: float


@dataclass(frozen=True, slots=True)
class Validation:
    """Loss and accuracy on the val split; the epoch with the highest accuracy is kept."""

    loss: float
    accuracy: float


class Task(Protocol):
    """Batches, their loss, and validation."""

    def batches(self, seed: int, epoch: int) -> Iterator[Batch]: ...

    def assess(self, logits: Tensor, batch: Batch) -> StepOutcome: ...

    def validate(self, network: nn.Module) -> Validation: ...


@dataclass(frozen=True, slots=True)
class TrainableNetwork:
    """A network before training, and the part of it that is pretrained."""

    name: str
    seed: int
    network: nn.Module
    pretrained: nn.Module


class AveragedWeights:
    """An exponential moving average of a network's parameters and statistics."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self._steps = 0
        self.state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move towards the network; faster at first, when the average is still the initial weights."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                self.state[name].lerp_(tensor, 1.0 - decay)
            else:
                self.state[name].copy_(tensor)

    def restore(self, state: dict[str, Tensor], steps: int) -> None:
        """Continue from a saved average."""
        self.state, self._steps = state, steps


def fit(
    trainable: TrainableNetwork, task: Task, schedule: Schedule, run_dir: Path, progress: TrainingProgress
) -> tuple[EpochRecord, ...]:
    """Return the history; the kept epoch's averaged weights are in `run_dir` and in the network.

    An interrupted run is resumed after its last complete epoch, and ends with the same weights as one that
    was not interrupted. Raises: UsageError, where the loss is not finite.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    trainer = _Trainer(trainable, schedule)
    history = trainer.resume(run_dir)
    while len(history) < schedule.epochs and not _out_of_patience(history, schedule.patience):
        record = trainer.epoch(task, len(history), progress)
        history = (*history, record)
        if kept_epoch(history, schedule.keep) == record.epoch:
            _write_weights(trainer.average.state, run_dir / BEST_FILE)
        trainer.save(run_dir, history)
        progress.finished_epoch(trainable.name, record, schedule.epochs)
    _write_history(history, run_dir / HISTORY_FILE)
    trainable.network.load_state_dict(load_file(run_dir / BEST_FILE))
    return history


def kept_epoch(history: tuple[EpochRecord, ...], keep: Kept) -> int:
    """Return the epoch whose weights are kept: the last, or the first of the best ones."""
    if keep is Kept.LAST:
        return history[-1].epoch
    return max(history, key=lambda record: (record.val_accuracy, -record.epoch)).epoch


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the hex sha256 of the tensors' names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def limit_threads(threads: int) -> None:
    """Let torch use at most `threads`; fewer where the process was started with fewer (OMP_NUM_THREADS)."""
    torch.set_num_threads(min(threads, torch.get_num_threads()))


def make_deterministic(threads: int) -> None:
    """Make torch bit-reproducible on this machine for the same number of threads, at most `threads`."""
    limit_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Filling memory that is overwritten at once only costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _out_of_patience(history: tuple[EpochRecord, ...], patience: int) -> bool:
    scores = [record.val_accuracy for record in history]
    return bool(scores) and len(scores) - 1 - scores.index(max(scores)) >= patience


class _Trainer:
    def __init__(self, trainable: TrainableNetwork, schedule: Schedule) -> None:
        self._trainable = trainable
        self._schedule = schedule
        self._steps_per_epoch = math.ceil(schedule.samples_per_epoch / schedule.batch)
        self.average = AveragedWeights(trainable.network, schedule.ema_decay)
        pretrained = {id(parameter) for parameter in trainable.pretrained.parameters()}
        rest = [parameter for parameter in trainable.network.parameters() if id(parameter) not in pretrained]
        self._optimizer = _optimizer(
            [
                {"params": list(trainable.pretrained.parameters()), "lr": schedule.learning_rate},
                {"params": rest, "lr": schedule.head_learning_rate},
            ],
            schedule,
        )
        self._rate = torch.optim.lr_scheduler.LambdaLR(self._optimizer, self._factor)
        self._step = 0

    def _factor(self, step: int) -> float:
        if self._schedule.rate is LearningRateSchedule.CONSTANT:
            return 1.0
        total = self._steps_per_epoch * self._schedule.epochs
        warm = max(1, round(total * self._schedule.warmup))
        if step < warm:
            return (step + 1) / warm
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, total - warm))))

    def epoch(self, task: Task, epoch: int, progress: TrainingProgress) -> EpochRecord:
        started_s = time.monotonic()
        torch.manual_seed(self._trainable.seed + epoch)
        network = self._trainable.network
        network.train()
        if self._schedule.freeze_norm:
            for module in self._trainable.pretrained.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        losses: list[float] = []
        accuracies: list[float] = []
        sizes: list[int] = []
        for batch in prefetched(task.batches(self._trainable.seed, epoch)):
            outcome = task.assess(self._logits(batch), batch)
            self._update(outcome.loss)
            losses.append(float(outcome.loss.detach()))
            accuracies.append(outcome.accuracy)
            sizes.append(len(batch.rgb))
            progress.stepped(self._trainable.name, epoch, len(losses), self._steps_per_epoch)
        validation = self._validate(task)
        record = EpochRecord(
            epoch=epoch,
            train_loss=_weighted_mean(losses, sizes),
            train_accuracy=_weighted_mean(accuracies, sizes),
            val_loss=validation.loss,
            val_accuracy=validation.accuracy,
            seconds_s=time.monotonic() - started_s,
        )
        _refuse_diverged(self._trainable.name, record)
        return record

    def _logits(self, batch: Batch) -> Tensor:
        reduced = self._schedule.arithmetic is Arithmetic.BFLOAT16
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            logits: Tensor = self._trainable.network(batch.rgb)
        return logits.float()

    def _update(self, loss: Tensor) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._schedule.clip_norm > 0.0:
            nn.utils.clip_grad_norm_(self._trainable.network.parameters(), self._schedule.clip_norm)
        self._optimizer.step()
        self._rate.step()
        self._step += 1
        self.average.update(self._trainable.network)

    def _validate(self, task: Task) -> Validation:
        network = self._trainable.network
        current = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        network.load_state_dict(self.average.state)
        network.eval()
        with torch.inference_mode():
            validation = task.validate(network)
        network.load_state_dict(current)
        return validation

    def save(self, run_dir: Path, history: tuple[EpochRecord, ...]) -> None:
        """Write a checkpoint atomically."""
        partial = run_dir / (CHECKPOINT_FILE + ".part")
        torch.save(
            {
                "network": self._trainable.network.state_dict(),
                "average": self.average.state,
                "optimizer": self._optimizer.state_dict(),
                "rate": self._rate.state_dict(),
                "step": self._step,
                "history": [asdict(record) for record in history],
            },
            partial,
        )
        partial.replace(run_dir / CHECKPOINT_FILE)
        _write_history(history, run_dir / HISTORY_FILE)

    def resume(self, run_dir: Path) -> tuple[EpochRecord, ...]:
        """Load the checkpoint, if there is one; return its history, else an empty one."""
        path = run_dir / CHECKPOINT_FILE
        if not path.exists():
            return ()
        checkpoint = torch.load(path, weights_only=True)
        self._trainable.network.load_state_dict(checkpoint["network"])
        self._optimizer.load_state_dict(checkpoint["optimizer"])
        self._rate.load_state_dict(checkpoint["rate"])
        self._step = int(checkpoint["step"])
        self.average.restore(checkpoint["average"], self._step)
        return tuple(EpochRecord(**record) for record in checkpoint["history"])


def _refuse_diverged(name: str, record: EpochRecord) -> None:
    """Raises: UsageError, where the loss is not finite: no later epoch would be."""
    if not math.isfinite(record.train_loss + record.val_loss):
        raise UsageError(
            f"{name} diverged in epoch {record.epoch + 1}; lower the recipe's learning rates.",
            code="diverged",
        )


def _optimizer(groups: list[dict[str, object]], schedule: Schedule) -> torch.optim.Optimizer:
    if schedule.optimizer is Optimizer.ADAM:
        return torch.optim.Adam(groups, eps=_KERAS_EPSILON, weight_decay=schedule.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=schedule.weight_decay)


def _weighted_mean(values: list[float], sizes: list[int]) -> float:
    return sum(value * size for value, size in zip(values, sizes, strict=True)) / sum(sizes)


def _write_weights(state: dict[str, Tensor], target: Path) -> None:
    """Write the weights atomically."""
    partial = target.with_name(target.name + ".part")
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, partial)
    partial.replace(target)


def _write_history(history: tuple[EpochRecord, ...], target: Path) -> None:
    text = json.dumps([asdict(record) for record in history], indent=1, allow_nan=False)
    target.write_text(text + "\n", encoding="utf-8")
