"""Runs batches on two CUDA streams: while one computes, the other copies."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

from pipeline.model.domain import Probabilities, Rgb
from pipeline.runtime.engines.engine_port import BatchRefused
from pipeline.runtime.tensorrt.batch_shapes import ShapeProfile
from pipeline.runtime.tensorrt.device import Device
from pipeline.runtime.tensorrt.stream_executor import LoadedPlan, StreamExecutor

STREAMS = 2


class InferenceLoop:
    """Runs the batches of several threads; each thread gets its results in order."""

    def __init__(self, plan: LoadedPlan, device: Device, shapes: ShapeProfile) -> None:
        """Raises: CapacityError, where the device has no memory for two streams."""
        self._shapes = shapes
        self._free = deque(StreamExecutor(plan, device) for _ in range(STREAMS))
        self._changed = threading.Condition()
        self._closed = False

    def run(self, batch: Rgb) -> Probabilities:
        """Return the float32 output for a uint8 (N, H, W, 3) batch, N ≥ 1.

        It is split into batches of the profile's optimum size. Raises: CapacityError; BatchRefused, where H
        or W lies outside the profile; DeploymentError, where the device fails.
        """
        optimum = self._shapes.optimum.count
        parts = [batch[start : start + optimum] for start in range(0, len(batch), optimum)]
        for part in (parts[0], parts[-1]):
            if not self._shapes.accepts(part.shape):
                raise BatchRefused(f"the plan accepts batches of {self._shapes}, not {part.shape}")
        return np.concatenate(self._answers([np.ascontiguousarray(part) for part in parts]))

    def close(self) -> None:
        """Wait for the running batches, then free buffers and contexts. Idempotent."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.wait_for(lambda: len(self._free) == STREAMS)
            self._free.clear()
            self._changed.notify_all()

    def _answers(self, parts: list[Rgb]) -> list[Probabilities]:
        """Return the outputs in order. With a second executor free, two parts run at once."""
        answers: list[Probabilities] = []
        held: deque[StreamExecutor] = deque()
        try:
            for part in parts:
                # A thread that holds an executor must not wait for another one: two such threads would
                # deadlock.
                executor = self._free_executor() if held else self._next_executor()
                if executor is None:
                    answers.append(held[0].finish())
                    held.rotate(-1)
                else:
                    held.append(executor)
                held[-1].start(part)
            while held:
                answers.append(held[0].finish())
                self._give_back(held.popleft())
        finally:
            for executor in held:
                executor.abandon()
                self._give_back(executor)
        return answers

    def _next_executor(self) -> StreamExecutor:
        """Return an executor; wait until one is free."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._free)
            if self._closed:
                raise RuntimeError("the engine is closed")
            return self._free.popleft()

    def _free_executor(self) -> StreamExecutor | None:
        with self._changed:
            return self._free.popleft() if self._free else None

    def _give_back(self, executor: StreamExecutor) -> None:
        with self._changed:
            self._free.append(executor)
            self._changed.notify_all()
