"""What TensorBoard reads of an epoch is what the epoch's record says."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from pipeline.training.fit.progress import EpochRecord


class Heard:
    """A listener that keeps what reaches it."""

    def __init__(self) -> None:
        self.epochs: list[EpochRecord] = []

    def stepped(self, *_: object) -> None: ...

    def finished_epoch(self, _: str, record: EpochRecord, *__: object) -> None:
        self.epochs.append(record)

    def says(self, _: str) -> None: ...


def test_tensorboard_reads_back_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from pipeline.training.fit.event_files import EventFiles

    heard = Heard()
    records = [EpochRecord(epoch, 0.5 - epoch / 8, 0.25, 0.75, 0.5 + epoch / 8, 1.0) for epoch in (0, 1, 2)]
    first = EventFiles(tmp_path, heard)
    for record in records[:2]:
        first.finished_epoch("network-2", record, 3)
    # A training that was cut off goes on in another process, with another file.
    EventFiles(tmp_path, heard).finished_epoch("network-2", records[2], 3)
    assert heard.epochs == records
    read = EventAccumulator(str(tmp_path / "tensorboard" / "network-2")).Reload()
    assert set(read.Tags()["scalars"]) == {"accuracy/train", "accuracy/val", "loss/train", "loss/val"}
    assert [(one.step, one.value) for one in read.Scalars("accuracy/val")] == [
        (record.epoch + 1, record.val_accuracy) for record in records
    ]
    assert [one.value for one in read.Scalars("loss/train")] == [record.train_loss for record in records]
