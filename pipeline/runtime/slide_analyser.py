"""One open bundle of models, and what it makes of a scan. Worker, command line and notebooks share it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pipeline.bundle.manifest import Profile
from pipeline.model.domain import Provenance, RunKey, SlideResult
from pipeline.model.execution import Execution
from pipeline.model.ports import SlideReader
from pipeline.model.spec import PipelineSpec
from pipeline.run import Models, analyse_slide
from pipeline.runtime.analysis_monitor import AnalysisMonitor
from pipeline.runtime.bundle_loader import Bundle, load_bundle
from pipeline.runtime.concurrency.batcher import (
    BatchClient,
    BatchedClassifier,
    BatchedSegmenter,
    BatchingLimits,
    Load,
    ScansInFlight,
    Urgency,
)
from pipeline.runtime.concurrency.machine import (
    ParallelismOverrides,
    available_cores,
    parallelism,
    supports_int8,
)
from pipeline.runtime.concurrency.ordered_threads import OrderedThreadPool
from pipeline.runtime.engine_choice import EngineResources, choose_engine, engine_text
from pipeline.runtime.engines.engine_port import EngineName
from pipeline.runtime.graph_networks import GraphClassifier, GraphSegmenter
from pipeline.runtime.readers import DecodeLimits, open_slide
from pipeline.runtime.tensorrt.plan_cache import default_plans_dir


@dataclass(frozen=True, slots=True)
class AnalyserOptions:
    """What an analyser is opened with. Without any, it suits this machine."""

    bundle: Path | None = None
    """folder of the model bundle; None: the shipped one"""
    profile: Profile = Profile.FAST
    engine: EngineName = EngineName.AUTO
    parallelism: ParallelismOverrides = field(default_factory=ParallelismOverrides)
    """threads, streams and tiles read ahead"""
    plans_dir: Path = field(default_factory=default_plans_dir)
    """folder where TensorRT keeps its plans between starts"""
    limits: DecodeLimits = field(default_factory=DecodeLimits)


@dataclass(frozen=True, slots=True)
class SlideAnalyser:
    """Analyses scans with one bundle. Several threads may ask at once; the networks batch across them."""

    models_for: Callable[[BatchClient], Models]
    """the networks as one scan asks them"""
    bundle: Bundle
    spec: PipelineSpec
    limits: DecodeLimits
    engine: str
    """which ran, and why it was taken"""
    read_ahead: int
    in_flight: ScansInFlight
    loads: Callable[[], Mapping[str, Load]] = dict
    """what each network was asked so far, by its name; empty where nobody counts"""

    @property
    def models(self) -> Models:
        """The networks as a routine scan asks them."""
        return self.models_for(BatchClient())

    @contextmanager
    def open(self, path: Path) -> Iterator[SlideReader]:
        """Return the open scan. Raises: InputError, with a sentence for the technician."""
        with open_slide(path, self.limits) as reader:
            yield reader

    def run_key(self, scan_digest: str) -> RunKey:
        """Return the key under which an analysis of these bytes is known."""
        return RunKey(scan_digest, self.bundle.digest, self.spec.digest)

    def analyse(
        self,
        reader: SlideReader,
        scan_digest: str,
        monitor: AnalysisMonitor,
        urgency: Urgency = Urgency.ROUTINE,
    ) -> SlideResult:
        """Return the result with its provenance. Raises: what `analyse_slide` and `monitor` raise."""
        models = self.models_for(BatchClient(urgency))
        with self.in_flight.scan(), OrderedThreadPool(self.read_ahead) as pool:
            analysis = analyse_slide(reader, models, self.spec, Execution(monitor, pool))
        return SlideResult(
            analysis,
            Provenance(
                run_key=self.run_key(scan_digest),
                bundle_name=self.bundle.name,
                engine=self.engine,
                software_version=_software_version(),
                timings_s=monitor.timings_s,
            ),
        )


@contextmanager
def open_slide_analyser(options: AnalyserOptions) -> Iterator[SlideAnalyser]:
    """Return an analyser with the networks loaded; they are closed at the end.

    Raises: DeploymentError, where the bundle does not fit, or the engine lacks something.
    """
    resources = EngineResources(
        parallelism(available_cores(), options.parallelism), options.plans_dir, supports_int8()
    )
    choice = choose_engine(options.engine, resources)
    bundle = replace(load_bundle(options.bundle, options.profile), precision=choice.precision)
    limits = BatchingLimits(resources.parallelism.streams, ScansInFlight())
    with (
        GraphSegmenter(bundle, choice.opener) as segmenter,
        GraphClassifier(bundle, choice.opener) as classifier,
        BatchedSegmenter(segmenter, limits=limits) as batched_segmenter,
        BatchedClassifier(classifier, limits=limits) as batched_classifier,
    ):
        yield SlideAnalyser(
            models_for=lambda client: Models(
                batched_segmenter.for_client(client), batched_classifier.for_client(client)
            ),
            bundle=bundle,
            spec=bundle.manifest.spec,
            limits=options.limits,
            engine=engine_text(choice, (*segmenter.identities, *classifier.identities)),
            read_ahead=resources.parallelism.read_ahead,
            in_flight=limits.in_flight,
            loads=lambda: {"segmenter": batched_segmenter.load, "classifier": batched_classifier.load},
        )


@cache
def _software_version() -> str:
    return version("leukoflow")  # reads a file each time it is asked
