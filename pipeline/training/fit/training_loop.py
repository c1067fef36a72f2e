"""Learns: warm-up and cosine or a constant rate, averaged weights, one epoch kept; resumable after a kill."""

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
from pipeline.training.fit.batches import Batch, ahead
from pipeline.training.fit.progress import EpochRecord, TrainingProgress
from pipeline.training.recipe.recipes import Arithmetic, Kept, LearningRateSchedule, Optimizer, Schedule

BEST_FILE = "best.safetensors"
CHECKPOINT_FILE = "last.pt"
HISTORY_FILE = "history.json"
_KERAS_EPSILON = 1e-7
"""Source: keras.optimizers.Adam, default"""


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """A batch's loss, to be differentiated, and its accuracy."""

    loss: Tensor
    accuracy: float


@dataclass(frozen=True, slots=True)
class Validation:
    """What the val split says; the epoch with the highest accuracy is kept."""

    loss: float
    accuracy: float


class Task(Protocol):
    """What is learnt: batches, their loss, and how well the val split goes."""

    def batches(self, seed: int, epoch: int) -> Iterator[Batch]: ...

    def assess(self, logits: Tensor, batch: Batch) -> StepOutcome: ...

    def validate(self, network: nn.Module) -> Validation: ...


@dataclass(frozen=True, slots=True)
class Subject:
    """The network that learns, and which part of it was pretrained."""

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
        """Move towards the network; faster at first, when the average is only its start."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                self.state[name].lerp_(tensor, 1.0 - decay)
            else:
                self.state[name].copy_(tensor)

    def restore(self, state: dict[str, Tensor], steps: int) -> None:
        """Take up an average where it was left."""
        self.state, self._steps = state, steps


def fit(
    subject: Subject, task: Task, schedule: Schedule, run_dir: Path, progress: TrainingProgress
) -> tuple[EpochRecord, ...]:
    """Return the history; the kept epoch's averaged weights are in `run_dir` and in the network.

    What was killed goes on after its last whole epoch, and ends with the weights of a run that was not.
    Raises: UsageError, where the loss is no number any more.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    learner = _Trainer(subject, schedule)
    history = learner.resume(run_dir)
    while len(history) < schedule.epochs and not _exhausted(history, schedule.patience):
        record = learner.epoch(task, len(history), progress)
        history = (*history, record)
        if kept_epoch(history, schedule.keep) == record.epoch:
            _write_weights(learner.average.state, run_dir / BEST_FILE)
        learner.save(run_dir, history)
        progress.finished_epoch(subject.name, record, schedule.epochs)
    _write_history(history, run_dir / HISTORY_FILE)
    subject.network.load_state_dict(load_file(run_dir / BEST_FILE))
    return history


def kept_epoch(history: tuple[EpochRecord, ...], keep: Kept) -> int:
    """Return the number of the epoch whose weights stay: the last, or the first of the best ones."""
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


def make_deterministic(threads: int) -> None:
    """Have torch repeat itself to the bit on this machine, as long as the number of threads stays.

    There are fewer than `threads` where the process was started with fewer (OMP_NUM_THREADS).
    """
    torch.set_num_threads(min(threads, torch.get_num_threads()))
    torch.use_deterministic_algorithms(True)
    # What torch allocates and overwrites at once need not be filled first.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _exhausted(history: tuple[EpochRecord, ...], patience: int) -> bool:
    scores = [record.val_accuracy for record in history]
    return bool(scores) and len(scores) - 1 - scores.index(max(scores)) >= patience


class _Trainer:
    def __init__(self, subject: Subject, schedule: Schedule) -> None:
        self._subject = subject
        self._schedule = schedule
        self._steps_per_epoch = math.ceil(schedule.samples_per_epoch / schedule.batch)
        self.average = AveragedWeights(subject.network, schedule.ema_decay)
        pretrained = {id(parameter) for parameter in subject.pretrained.parameters()}
        rest = [parameter for parameter in subject.network.parameters() if id(parameter) not in pretrained]
        self._optimizer = _optimizer(
            [
                {"params": list(subject.pretrained.parameters()), "lr": schedule.learning_rate},
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
        began_s = time.monotonic()
        torch.manual_seed(self._subject.seed + epoch)
        network = self._subject.network
        network.train()
        if self._schedule.freeze_norm:
            for module in self._subject.pretrained.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        losses: list[float] = []
        accuracies: list[float] = []
        sizes: list[int] = []
        for batch in ahead(task.batches(self._subject.seed, epoch)):
            outcome = task.assess(self._logits(batch), batch)
            self._learn(outcome.loss)
            losses.append(float(outcome.loss.detach()))
            accuracies.append(outcome.accuracy)
            sizes.append(len(batch.rgb))
            progress.stepped(self._subject.name, epoch, len(losses), self._steps_per_epoch)
        validation = self._validate(task)
        record = EpochRecord(
            epoch=epoch,
            train_loss=_weighted_mean(losses, sizes),
            train_accuracy=_weighted_mean(accuracies, sizes),
            val_loss=validation.loss,
            val_accuracy=validation.accuracy,
            seconds_s=time.monotonic() - began_s,
        )
        _refuse_diverged(self._subject.name, record)
        return record

    def _logits(self, batch: Batch) -> Tensor:
        reduced = self._schedule.arithmetic is Arithmetic.BFLOAT16
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            logits: Tensor = self._subject.network(batch.rgb)
        return logits.float()

    def _learn(self, loss: Tensor) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._schedule.clip_norm > 0.0:
            nn.utils.clip_grad_norm_(self._subject.network.parameters(), self._schedule.clip_norm)
        self._optimizer.step()
        self._rate.step()
        self._step += 1
        self.average.update(self._subject.network)

    def _validate(self, task: Task) -> Validation:
        network = self._subject.network
        learning = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        network.load_state_dict(self.average.state)
        network.eval()
        with torch.inference_mode():
            validation = task.validate(network)
        network.load_state_dict(learning)
        return validation

    def save(self, run_dir: Path, history: tuple[EpochRecord, ...]) -> None:
        """Leave a checkpoint; it appears whole or not at all."""
        partial = run_dir / (CHECKPOINT_FILE + ".part")
        torch.save(
            {
                "network": self._subject.network.state_dict(),
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
        """Return the history of the checkpoint that was taken up; empty where there is none."""
        path = run_dir / CHECKPOINT_FILE
        if not path.exists():
            return ()
        left = torch.load(path, weights_only=True)
        self._subject.network.load_state_dict(left["network"])
        self._optimizer.load_state_dict(left["optimizer"])
        self._rate.load_state_dict(left["rate"])
        self._step = int(left["step"])
        self.average.restore(left["average"], self._step)
        return tuple(EpochRecord(**record) for record in left["history"])


def _refuse_diverged(name: str, record: EpochRecord) -> None:
    """Raises: UsageError, where the loss is no number any more: what follows would be none either."""
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
    """They appear whole or not at all."""
    partial = target.with_name(target.name + ".part")
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, partial)
    partial.replace(target)


def _write_history(history: tuple[EpochRecord, ...], target: Path) -> None:
    text = json.dumps([asdict(record) for record in history], indent=1, allow_nan=False)
    target.write_text(text + "\n", encoding="utf-8")
