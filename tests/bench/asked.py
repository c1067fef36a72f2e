"""What the networks were asked for one scan, to be asked again with nothing else around them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from pipeline.model.domain import Probabilities, Rgb
from pipeline.model.geometry import Size
from pipeline.model.ports import Classifier, Segmenter
from pipeline.run import Models
from pipeline.runtime.concurrency.ordered_threads import OrderedThreadPool
from tests.bench.measure import seconds

Shape = tuple[int, ...]


class _AskedSegmenter:
    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self.stride_px = segmenter.stride_px
        self.shapes: list[Shape] = []

    def segment(self, batch: Rgb) -> Probabilities:
        self.shapes.append(batch.shape)  # several threads ask
        return self._segmenter.segment(batch)


class _AskedClassifier:
    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self.crop_px: Size = classifier.crop_px
        self.crop_mpp_um: float = classifier.crop_mpp_um
        self.shapes: list[Shape] = []

    def classify(self, batch: Rgb) -> Probabilities:
        self.shapes.append(batch.shape)  # several threads ask
        return self._classifier.classify(batch)


class Asked:
    """Networks that note the batches that they are given."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._segmenter = _AskedSegmenter(models.segmenter)
        self._classifier = _AskedClassifier(models.classifier)

    @property
    def models(self) -> Models:
        """The networks to analyse with."""
        return Models(self._segmenter, self._classifier)

    def seconds_alone(self, ahead: int) -> float:
        """Return how long the same batches take without reading, finding and drawing, `ahead` at once."""
        return _seconds(self._models.segmenter.segment, self._segmenter.shapes, ahead) + _seconds(
            self._models.classifier.classify, self._classifier.shapes, ahead
        )


def _seconds(ask: Callable[[Rgb], Probabilities], shapes: Sequence[Shape], ahead: int) -> float:
    random = np.random.default_rng(0)
    batches = [random.integers(0, 256, shape, np.uint8) for shape in shapes]
    with OrderedThreadPool(ahead) as pool:
        return seconds(lambda: deque(pool.map(ask, batches), maxlen=0))
