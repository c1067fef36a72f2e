"""One contract for segmenters and classifiers, direct and batched, and for the bundle that they come from."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from pipeline.bundle.int8_figures import Precision
from pipeline.bundle.manifest import FILE_NAME, BundleManifest, Profile
from pipeline.model.domain import Rgb
from pipeline.model.errors import DeploymentError
from pipeline.model.geometry import Size
from pipeline.model.ports import Classifier, Segmenter
from pipeline.model.taxonomy import LEAVES
from pipeline.runtime.bundle_loader import Bundle, load_bundle
from pipeline.runtime.concurrency.batcher import BatchedClassifier, BatchedSegmenter
from pipeline.runtime.engines.onnxruntime_engine import onnx_runtime
from pipeline.runtime.graph_networks import GraphClassifier, GraphSegmenter
from tests.support import tiny_bundle

ENGINE = onnx_runtime(threads=1)
TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=list(Profile))
def profile(request: pytest.FixtureRequest) -> Profile:
    return Profile(request.param)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    tiny_bundle.write_bundle(folder)
    return load_bundle(folder)


@pytest.fixture(scope="module", params=["direct", "batched"])
def segmenter(request: pytest.FixtureRequest, bundle: Bundle, profile: Profile) -> Iterator[Segmenter]:
    direct = GraphSegmenter(replace(bundle, profile=profile), ENGINE)
    if request.param == "direct":
        yield direct
    else:
        with BatchedSegmenter(direct, max_batch=4, max_wait_s=0.01) as batched:
            yield batched


@pytest.fixture(scope="module", params=["direct", "batched"])
def classifier(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[Classifier]:
    direct = GraphClassifier(bundle, ENGINE)
    if request.param == "direct":
        yield direct
    else:
        with BatchedClassifier(direct, max_batch=5, max_wait_s=0.01) as batched:
            yield batched


def _pictures(seed: int, count: int, height: int, width: int) -> Rgb:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), count=st.integers(0, 11), rows=st.integers(1, 4), columns=st.integers(1, 4))
def test_a_segmenter_gives_each_pixel_its_tissue(
    segmenter: Segmenter, profile: Profile, seed: int, count: int, rows: int, columns: int
) -> None:
    batch = _pictures(seed, count, rows * segmenter.stride_px, columns * segmenter.stride_px)
    tissues = segmenter.segment(batch)
    assert tissues.dtype == np.float32
    assert tissues.shape == (count, 3, *batch.shape[1:3])
    assert np.allclose(tissues, tiny_bundle.expected_tissues(batch, profile), atol=TOLERANCE)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), count=st.integers(0, 23))
def test_a_classifier_gives_each_members_opinion(classifier: Classifier, seed: int, count: int) -> None:
    batch = _pictures(seed, count, classifier.crop_px.height, classifier.crop_px.width)
    opinions = classifier.classify(batch)
    assert opinions.dtype == np.float32
    assert opinions.shape == (len(tiny_bundle.MEMBER_SEEDS), count, len(LEAVES))
    assert np.allclose(opinions, tiny_bundle.expected_classes(batch), atol=TOLERANCE)
    assert np.allclose(opinions.sum(axis=2), 1, atol=TOLERANCE)


def test_a_batch_is_left_as_it_was(segmenter: Segmenter) -> None:
    batch = _pictures(0, 2, 16, 16)
    before = batch.copy()
    segmenter.segment(batch)
    assert np.array_equal(batch, before)


def test_a_view_is_as_good_as_a_copy(segmenter: Segmenter, profile: Profile) -> None:
    batch = _pictures(0, 3, 32, 32)[:, ::2, ::2, ::-1]
    assert np.allclose(segmenter.segment(batch), tiny_bundle.expected_tissues(batch, profile), atol=TOLERANCE)


@settings(max_examples=10, deadline=None)
@given(counts=st.lists(st.integers(0, 7), min_size=2, max_size=12), seed=st.integers(0, 99))
def test_threads_get_their_own_tissues(
    segmenter: Segmenter, profile: Profile, counts: list[int], seed: int
) -> None:
    sides = (48, 96)
    batches = [_pictures(seed + index, count, 48, sides[index % 2]) for index, count in enumerate(counts)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(segmenter.segment, batches))
    for batch, answer in zip(batches, answers, strict=True):
        assert answer.shape[0] == len(batch)
        assert np.allclose(answer, tiny_bundle.expected_tissues(batch, profile), atol=TOLERANCE)


@settings(max_examples=10, deadline=None)
@given(counts=st.lists(st.integers(0, 9), min_size=2, max_size=12), seed=st.integers(0, 99))
def test_threads_get_their_own_classes(classifier: Classifier, counts: list[int], seed: int) -> None:
    side = classifier.crop_px.width
    batches = [_pictures(seed + index, count, side, side) for index, count in enumerate(counts)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(classifier.classify, batches))
    for batch, answer in zip(batches, answers, strict=True):
        assert answer.shape[1] == len(batch)
        assert np.allclose(answer, tiny_bundle.expected_classes(batch), atol=TOLERANCE)


def test_what_the_manifest_says_is_passed_on(
    segmenter: Segmenter, profile: Profile, classifier: Classifier
) -> None:
    assert segmenter.stride_px == tiny_bundle.STRIDES_PX[profile]
    assert classifier.crop_px == Size(tiny_bundle.CROP_PX, tiny_bundle.CROP_PX)
    assert classifier.crop_mpp_um == 0.2


def test_the_engine_names_itself(bundle: Bundle) -> None:
    (identity,) = GraphSegmenter(bundle, ENGINE).identities
    assert (identity.name, identity.device, identity.precision) == ("onnxruntime", "CPU", "fp32")
    assert identity.version[0].isdigit()


def _fails(folder: Path) -> DeploymentError:
    with pytest.raises(DeploymentError) as caught:
        GraphClassifier(load_bundle(folder), ENGINE), GraphSegmenter(load_bundle(folder), ENGINE)
    assert "\n" not in caught.value.sentence
    return caught.value


@pytest.fixture
def fresh(tmp_path: Path) -> tuple[Path, BundleManifest]:
    return tmp_path, tiny_bundle.write_bundle(tmp_path)


def test_a_folder_without_a_bundle(tmp_path: Path) -> None:
    assert _fails(tmp_path).code == "bundle_missing"


def test_a_changed_file(fresh: tuple[Path, BundleManifest]) -> None:
    folder, manifest = fresh
    file = folder / manifest.classifier.members[1].file
    file.write_bytes(file.read_bytes() + b"\0")
    error = _fails(folder)
    assert error.code == "bundle_digest"
    assert file.name in error.sentence


def test_a_missing_file(fresh: tuple[Path, BundleManifest]) -> None:
    folder, manifest = fresh
    (folder / manifest.segmenter.members[-1].file).unlink()
    assert _fails(folder).code == "bundle_incomplete"


def test_a_manifest_of_the_old_format(fresh: tuple[Path, BundleManifest]) -> None:
    folder, manifest = fresh
    text = manifest.render().replace('"format": 2', '"format": 1')
    (folder / FILE_NAME).write_text(text, encoding="utf-8")
    error = _fails(folder)
    assert error.code == "bundle_manifest"
    assert "format 1" in error.sentence


def test_a_profile_that_the_bundle_lacks(fresh: tuple[Path, BundleManifest]) -> None:
    folder, manifest = fresh
    entry = replace(manifest.segmenter, profiles=manifest.segmenter.profiles[:1])
    tiny_bundle.write_manifest(folder, replace(manifest, segmenter=entry))
    assert load_bundle(folder, Profile.FAST).profile is Profile.FAST
    with pytest.raises(DeploymentError, match="no profile 'accurate'") as caught:
        load_bundle(folder, Profile.ACCURATE)
    assert caught.value.code == "bundle_profile"


def test_each_profile_is_known_by_its_own_name_and_digest(bundle: Bundle) -> None:
    accurate = replace(bundle, profile=Profile.ACCURATE)
    assert bundle.name != accurate.name
    assert len({bundle.digest, accurate.digest, bundle.manifest.digest}) == 3


@pytest.mark.parametrize("change", ["order", "name", "fewer"])
def test_other_classes(fresh: tuple[Path, BundleManifest], change: str) -> None:
    folder, manifest = fresh
    classes = {
        "order": manifest.classes[::-1],
        "name": ("unicorn", *manifest.classes[1:]),
        "fewer": manifest.classes[:-1],
    }[change]
    tiny_bundle.write_manifest(folder, replace(manifest, classes=classes))
    assert _fails(folder).code == "bundle_classes"


def _renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.input[0].name = model.graph.node[0].input[0] = "image"
    return model


def _float_input() -> onnx.ModelProto:
    model = tiny_bundle.segmenter_model()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    return model


def _unnormalised() -> onnx.ModelProto:
    model = tiny_bundle.segmenter_model()
    model.graph.node[3].CopyFrom(helper.make_node("Exp", ["scores"], ["last"]))
    return model


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(_renamed(tiny_bundle.segmenter_model()), id="other input name"),
        pytest.param(_float_input(), id="float input"),
        pytest.param(tiny_bundle.segmenter_model(outputs=4), id="four tissues"),
        pytest.param(tiny_bundle.member_model(9, outputs=3), id="a classifier"),
        pytest.param(_unnormalised(), id="no softmax"),
    ],
)
def test_a_graph_that_is_no_segmenter(fresh: tuple[Path, BundleManifest], model: onnx.ModelProto) -> None:
    folder, manifest = fresh
    tiny_bundle.swap_segmenter(folder, manifest, model)
    assert _fails(folder).code == "bundle_graph"


def test_a_file_that_is_no_graph(fresh: tuple[Path, BundleManifest]) -> None:
    folder, manifest = fresh
    empty = onnx.ModelProto(opset_import=[helper.make_opsetid("", tiny_bundle.OPSET)])
    body = empty.SerializeToString()
    file = folder / manifest.segmenter.members[0].file
    file.write_bytes(body)
    told = tiny_bundle.with_light_digest(manifest, hashlib.sha256(body).hexdigest())
    tiny_bundle.write_manifest(folder, told)
    assert _fails(folder).code == "bundle_graph"


def test_the_shipped_bundle_opens() -> None:
    shipped = load_bundle()
    segmenter, classifier = GraphSegmenter(shipped, ENGINE), GraphClassifier(shipped, ENGINE)
    side = 4 * segmenter.stride_px
    assert segmenter.segment(_pictures(0, 2, side, side)).shape == (2, 3, side, side)
    crops = _pictures(0, 2, classifier.crop_px.height, classifier.crop_px.width)
    assert classifier.classify(crops).shape == (3, 2, len(LEAVES))


def test_the_shipped_weights_are_stored_once_and_read_from_files_that_the_manifest_names() -> None:
    shipped = load_bundle()
    named = {member.stored(precision).file for member in shipped.manifest.members for precision in Precision}
    assert {file.name for file in shipped.folder.iterdir()} == {*named, FILE_NAME}
    assert sum(file.stat().st_size for file in shipped.folder.iterdir()) <= 36_000_000
    for member in shipped.manifest.members:
        graph = shipped.folder / member.stored(Precision.INT8).file
        tensors = onnx.load(graph, load_external_data=False).graph.initializer
        places = {entry.value for one in tensors for entry in one.external_data if entry.key == "location"}
        assert places == ({member.file} if graph.name != member.file else set())


SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from pipeline.model.errors import CapacityError
from pipeline.runtime.bundle_loader import load_bundle
from pipeline.runtime.graph_networks import GraphSegmenter
from pipeline.runtime.engines.onnxruntime_engine import onnx_runtime

segmenter = GraphSegmenter(load_bundle(Path(sys.argv[1])), onnx_runtime(1))
large, small = np.zeros((1, 4096, 4096, 3), np.uint8), np.zeros((1, 64, 64, 3), np.uint8)
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit_bytes = pages * resource.getpagesize() + 100 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
try:
    segmenter.segment(large)
except CapacityError as error:
    print(error.code, segmenter.segment(small).shape)
"""


def test_a_batch_without_memory_is_a_capacity_error(bundle: Bundle) -> None:
    """In a process of its own, with 100 MB left for a batch that takes 200 MB and more."""
    ended = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY, str(bundle.folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout.strip() == "batch_too_large (1, 3, 64, 64)", ended.stderr[-800:]
