"""models build-engines: TensorRT's plans ahead of time, so that no worker waits for them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import typer

from pipeline.model.errors import DeploymentError, UsageError
from pipeline.runtime.engine_choice import shapes_of
from pipeline.runtime.engines.engine_port import GraphFile
from pipeline.runtime.tensorrt.batch_shapes import PlanPrecision
from pipeline.runtime.tensorrt.bindings import TensorRt
from pipeline.runtime.tensorrt.calibration_pictures import calibration_pictures
from pipeline.runtime.tensorrt.libraries import BUILD_FOR_OTHER_GPUS, find_gpu, find_tensorrt
from pipeline.runtime.tensorrt.plans import PlanRequest, plan_of
from worker.cli.bundles import ProfileOption, asked_bundle, asked_settings


@dataclass(frozen=True, slots=True)
class _Gpu:
    """What plans are built for, and with."""

    trt: TensorRt
    compute_capability: str
    is_here: bool


def build_engines(
    bundle: Annotated[Path | None, typer.Argument(help="Folder of the bundle; none: the one in use.")] = None,
    profile: ProfileOption = None,
    precision: Annotated[PlanPrecision, typer.Option(help="What the plans compute in.")] = PlanPrecision.FP16,
    calibration: Annotated[
        Path | None, typer.Option(help="Folder of pictures of single cells, which int8 needs.")
    ] = None,
    compute_capability: Annotated[
        str | None, typer.Option(help="Of a GPU that is not here, such as 8.9; needs TensorRT-RTX.")
    ] = None,
) -> None:
    """Build TensorRT's plans of a bundle; exit code 2 where TensorRT or a GPU is missing."""
    if precision is PlanPrecision.INT8 and calibration is None:
        raise UsageError("int8 is calibrated on pictures: name a folder with --calibration.", code="usage")
    settings = asked_settings(bundle, profile)
    whole = asked_bundle(settings.bundle, settings.profile)
    try:
        gpu = _gpu(compute_capability)
        for graph in (*whole.segmenter_graphs, *whole.classifier_graphs):
            _build(graph, gpu, _request(graph, settings.plans_dir, precision, calibration))
    except DeploymentError as error:
        raise UsageError(error.sentence, code=error.code) from error


def _gpu(compute_capability: str | None) -> _Gpu:
    if compute_capability is not None:
        return _Gpu(cast(TensorRt, find_tensorrt(BUILD_FOR_OTHER_GPUS)), compute_capability, is_here=False)
    trt = cast(TensorRt, find_tensorrt())
    major, minor = find_gpu().cuda.get_device_capability()
    return _Gpu(trt, f"{major}.{minor}", is_here=True)


def _request(
    graph: GraphFile, plans: Path, precision: PlanPrecision, calibration: Path | None
) -> PlanRequest:
    pictures = calibration_pictures(calibration, graph) if calibration is not None else []
    return PlanRequest(shapes_of(graph), plans, precision, pictures)


def _build(graph: GraphFile, gpu: _Gpu, request: PlanRequest) -> None:
    started_s = time.monotonic()
    plan = plan_of(gpu.trt, graph.path, request, gpu.compute_capability, gpu.is_here)
    took_s = time.monotonic() - started_s
    typer.echo(
        f"{graph.path.name}: {request.precision} for {gpu.compute_capability}, {request.shapes}, "
        f"{len(plan) / 1e6:.1f} MB, {took_s:.1f} s"
    )
