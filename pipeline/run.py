"""Composes the stages: `analyse_slide` analyses one scan."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.count.classification import CellClassification
from pipeline.count.conclusion import Extent, conclude
from pipeline.count.second_look import with_second_look
from pipeline.detect.instances import SlideFrame
from pipeline.detect.outlines import OutlineRefiner, outline_frame
from pipeline.detect.search import Search
from pipeline.detect.stitch import reading_order
from pipeline.detect.tissue import tissue_mask
from pipeline.measure.illumination import illumination_corrected, illumination_of
from pipeline.measure.monolayer import monolayer_density_per_mm2
from pipeline.measure.quality import quality_of
from pipeline.measure.scale import scale_of
from pipeline.model.domain import Scale, SlideAnalysis
from pipeline.model.execution import Execution
from pipeline.model.geometry import WorkingFrame
from pipeline.model.ports import Classifier, Segmenter, SlideReader, Stage
from pipeline.model.spec import PipelineSpec
from pipeline.sampling.strips import StripReader
from pipeline.sampling.thumbnail import darkest_thumbnail_of
from pipeline.sampling.windows import read_sample


@dataclass(frozen=True, slots=True)
class Models:
    """The loaded networks of one bundle."""

    segmenter: Segmenter
    classifier: Classifier


def analyse_slide(
    reader: SlideReader, models: Models, spec: PipelineSpec, execution: Execution
) -> SlideAnalysis:
    """Return the analysis of one open scan.

    Raises: InputError, where the scan is damaged; whatever the models raise.
    """
    observer = execution.observer
    with observer.stage(Stage.THUMBNAIL):
        strips = StripReader(reader, execution.pool)
        tissue = tissue_mask(darkest_thumbnail_of(strips))
        sample = read_sample(strips, tissue)
        segmenter = illumination_corrected(models.segmenter, illumination_of(sample))
    with observer.stage(Stage.SCALE):
        scale = scale_of(reader.meta.mpp, sample, segmenter, spec, execution.pool)
        frame = _frame(reader, scale, spec)
    quality_measured = execution.pool.begin(
        lambda: quality_of(
            tissue, sample, frame.working, monolayer_density_per_mm2(reader, tissue, scale.mpp)
        )
    )
    found = Search(reader, segmenter, frame, spec, execution).found(tissue)
    with observer.stage(Stage.OUTLINE):
        finer = outline_frame(frame, spec)
        refiner = OutlineRefiner(reader, segmenter, finer, spec, execution)
        instances = tuple(sorted(refiner.refined(found.cells), key=reading_order))
    with observer.stage(Stage.CLASSIFY):
        classification = CellClassification(reader, models.classifier, scale, spec, execution)
        cells = with_second_look(classification.cells(instances), classification, sample, frame)
    with observer.stage(Stage.CONCLUDE):
        quality = quality_measured()
        conclusion = conclude(cells, quality, Extent(reader.meta.size_px0, scale), spec)
    return SlideAnalysis(
        meta=reader.meta,
        scale=scale,
        frame=frame.working,
        quality=quality,
        tiles=found.tiles,
        cells=cells,
        differential=conclusion.differential,
        status=conclusion.status,
        reasons=conclusion.reasons,
        flags=conclusion.flags,
    )


def _frame(reader: SlideReader, scale: Scale, spec: PipelineSpec) -> SlideFrame:
    size_px0 = reader.meta.size_px0
    return SlideFrame(size_px0, scale.mpp, WorkingFrame.for_scan(size_px0, scale.mpp, spec.working_mpp_um))
