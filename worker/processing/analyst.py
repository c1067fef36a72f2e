"""One open bundle of models, and what it makes of a file. The command line and the worker share it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pipeline.model.domain import Provenance, RunKey, SlideResult
from pipeline.model.execution import Execution
from pipeline.model.ports import SlideReader
from pipeline.model.spec import PipelineSpec
from pipeline.output.pictures import gallery_sheets, jpeg, overview_picture
from pipeline.output.report import geojson_gz
from pipeline.run import Models, analyse_slide
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
from pipeline.runtime.graph_networks import GraphClassifier, GraphSegmenter
from pipeline.runtime.readers import DecodeLimits, open_slide
from worker.observability.analysis_monitor import AnalysisMonitor
from worker.settings import LocalSettings

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Picture:
    """A file beside a result: the end of its name, its type and its bytes."""

    name: str
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Analyst:
    """Analyses scans with one bundle. Several threads may ask at once; the models batch across them."""

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
def open_analyst(settings: LocalSettings) -> Iterator[Analyst]:
    """Return an analyst with the networks loaded; they are closed at the end.

    Raises: DeploymentError, where the bundle does not fit, or the engine lacks something.
    """
    resources = engine_resources(settings)
    choice = choose_engine(settings.engine, resources)
    bundle = replace(load_bundle(settings.bundle, settings.profile), precision=choice.precision)
    limits = BatchingLimits(resources.parallelism.streams, ScansInFlight())
    with (
        GraphSegmenter(bundle, choice.opener) as segmenter,
        GraphClassifier(bundle, choice.opener) as classifier,
        BatchedSegmenter(segmenter, limits=limits) as batched_segmenter,
        BatchedClassifier(classifier, limits=limits) as batched_classifier,
    ):
        yield Analyst(
            models_for=lambda client: Models(
                batched_segmenter.for_client(client), batched_classifier.for_client(client)
            ),
            bundle=bundle,
            spec=bundle.manifest.spec,
            limits=DecodeLimits(
                max_level0_pixels=settings.max_pixels, max_file_bytes=settings.max_file_bytes
            ),
            engine=engine_text(choice, (*segmenter.identities, *classifier.identities)),
            read_ahead=resources.parallelism.read_ahead,
            in_flight=limits.in_flight,
            loads=lambda: {"segmenter": batched_segmenter.load, "classifier": batched_classifier.load},
        )


@cache
def _software_version() -> str:
    return version("leukoflow")  # reads a file each time it is asked


def engine_resources(settings: LocalSettings) -> EngineResources:
    """Return what an engine may use: what was set, and what follows from this machine."""
    asked = ParallelismOverrides(settings.threads, settings.streams, settings.read_ahead)
    return EngineResources(parallelism(available_cores(), asked), settings.plans_dir, supports_int8())


def digest_of(path: Path) -> str:
    """Return the hex sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def pictures_of(reader: SlideReader, result: SlideResult) -> Iterator[Picture]:
    """Yield the overview, the gallery sheets and the GeoJSON of a result."""
    cells = result.analysis.cells
    yield Picture("overview.jpg", "image/jpeg", jpeg(overview_picture(reader, cells)))
    for number, sheet in enumerate(gallery_sheets(reader, cells), start=1):
        yield Picture(f"gallery-{number:03d}.jpg", "image/jpeg", jpeg(sheet))
    yield Picture("cells.geojson.gz", "application/geo+json", geojson_gz(cells))
