"""Graphs in float16 and int8 answer as those in float32: on drawn cells, and on real ones where they are."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from pipeline.model.errors import DeploymentError
from pipeline.model.geometry import Mpp, Rect, Size
from pipeline.runtime.bundle_loader import SHIPPED, load_bundle
from pipeline.runtime.engines.onnxruntime_without_telemetry import ort
from pipeline.runtime.tensorrt.batch_shapes import PlanPrecision
from pipeline.runtime.tensorrt.precision_graphs import prepared
from pipeline.sampling.crops import read_crop, resized
from pipeline.synth.smear import draw_smear
from pipeline.synth.smear_spec import EVEN, SmearSpec
from tests.support.drawn import DrawnSlide

CROP = Size(128, 128)
CROP_MPP_UM, TILE_MPP_UM = 0.18, 0.25
CROPS_PX, TILE_PX = 500, 192
LARGEST = {PlanPrecision.FP16: 0.03, PlanPrecision.INT8: 0.25}
"""difference in a probability"""
NEARLY_ALL = {PlanPrecision.FP16: 1.0, PlanPrecision.INT8: 0.99}
"""part of the probabilities for which that holds; with 7 bits an undecided cell moves farther"""
MEAN = {PlanPrecision.FP16: 0.002, PlanPrecision.INT8: 0.02}
AGREE = {PlanPrecision.FP16: 0.99, PlanPrecision.INT8: 0.95}
"""least share of crops, or of pixels, that keep their class; one whose two best are close may turn"""
CROPS, REAL_FIELDS = 64, 2
CELLS_A_SMEAR = 8
CALIBRATION_CROPS, CALIBRATION_FIELDS = 32, 16
PBC_CELL_PX = 230
"""of pbc_barcelona's pictures, of about 0.1 µm/px: what a crop shows"""
MANIFEST = load_bundle().manifest
CLASSIFIERS = sorted(member.file for member in MANIFEST.classifier.members)
SEGMENTERS = sorted(member.file for member in MANIFEST.segmenter.members)


@cache
def drawn_crops(first_seed, count):
    """Return as many crops, eight of a smear; other seeds draw other cells."""
    return np.concatenate([smear_crops(first_seed + smear) for smear in range(count // CELLS_A_SMEAR)])


def smear_crops(seed):
    smear = draw_smear(
        SmearSpec(Size(CROPS_PX, CROPS_PX), seed, Mpp(CROP_MPP_UM), leukocytes=CELLS_A_SMEAR, mix=EVEN)
    )
    slide = DrawnSlide(smear.read(Rect(0, 0, CROPS_PX, CROPS_PX)), CROP_MPP_UM)
    return np.stack(
        [read_crop(slide, cell.centre_px0, Mpp(CROP_MPP_UM), CROP, CROP_MPP_UM) for cell in smear.truth]
    )


@cache
def drawn_tile(seed):
    smear = draw_smear(SmearSpec(Size(TILE_PX, TILE_PX), seed, Mpp(TILE_MPP_UM), leukocytes=2))
    return smear.read(Rect(0, 0, TILE_PX, TILE_PX))[None]


@cache
def real_crops(folder, count, offset):
    files = sorted((folder / "pbc_barcelona" / "images").iterdir())
    step = len(files) // count
    chosen = files[offset * step // 2 :: step][:count]
    return np.stack([middle(picture(file), PBC_CELL_PX, CROP) for file in chosen])


@cache
def real_fields(folder, count, offset):
    files = sorted((folder / "bccd" / "images").iterdir())[offset : offset + count]
    return np.stack([resized(picture(file), Size(TILE_PX, TILE_PX)) for file in files])


def picture(file):
    return cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)


def middle(pixels, side, size):
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return resized(np.ascontiguousarray(pixels[top : top + side, left : left + side]), size)


@pytest.fixture(scope="module", autouse=True)
def _released():
    """Some thirty sessions and their pictures are kept for this module, and no longer."""
    yield
    for kept in (drawn_crops, drawn_tile, real_crops, real_fields, session, graph_of):
        kept.cache_clear()


@cache
def session(name, precision, folder=None):
    """Return the graph, int8 calibrated on drawn pictures, or on other real ones of `folder`."""
    stored = (SHIPPED / name).read_bytes()
    if precision is not None:
        stored = prepared(stored, precision, [calibration(name, folder)])
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # kept by each session: gigabytes in all
    return ort.InferenceSession(stored, options, providers=["CPUExecutionProvider"])


def calibration(name, folder):
    if folder is None:
        return drawn_tile(11) if name in SEGMENTERS else drawn_crops(11, CALIBRATION_CROPS)
    if name in SEGMENTERS:
        return real_fields(folder, CALIBRATION_FIELDS, REAL_FIELDS)
    return real_crops(folder, CALIBRATION_CROPS, 1)


def answers(name, precision, batch, folder=None):
    return session(name, precision, folder).run(None, {"rgb": batch})[0]


def check(name, precision, batch, folder=None):
    shipped, ours = answers(name, None, batch), answers(name, precision, batch, folder)
    assert ours.dtype == np.float32
    assert ours.shape == shipped.shape
    difference = np.abs(ours - shipped)
    agree = (ours.argmax(1) == shipped.argmax(1)).mean()
    nearly_all = np.quantile(difference, NEARLY_ALL[precision])
    found = f"{nearly_all:.4f} for nearly all, {difference.mean():.5f} in the mean; {agree:.2%} agree"
    assert nearly_all <= LARGEST[precision], found
    assert difference.mean() <= MEAN[precision], found
    assert agree >= AGREE[precision], found


REDUCED = pytest.mark.parametrize("precision", [PlanPrecision.FP16, PlanPrecision.INT8])


@REDUCED
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_agree_on_drawn_cells(name, precision):
    check(name, precision, drawn_crops(1, CROPS))


@REDUCED
@pytest.mark.parametrize("name", SEGMENTERS)
def test_segmenters_agree_on_drawn_fields(name, precision):
    check(name, precision, drawn_tile(1))


@REDUCED
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_agree_on_real_cells(shared_data, name, precision):
    check(name, precision, real_crops(shared_data, CROPS, 0), shared_data)


@REDUCED
@pytest.mark.parametrize("name", SEGMENTERS)
def test_segmenters_agree_on_real_fields(shared_data, name, precision):
    check(name, precision, real_fields(shared_data, REAL_FIELDS, 0), shared_data)


@pytest.mark.parametrize("name", [*CLASSIFIERS, *SEGMENTERS])
def test_float32_is_the_shipped_graph(name):
    batch = drawn_tile(1) if name in SEGMENTERS else smear_crops(1)
    assert np.abs(answers(name, PlanPrecision.FP32, batch) - answers(name, None, batch)).max() < 1e-5


@cache
def graph_of(precision):
    stored = (SHIPPED / CLASSIFIERS[-1]).read_bytes()
    return onnx.load_model_from_string(prepared(stored, precision, [smear_crops(11)])).graph


@pytest.mark.parametrize("precision", PlanPrecision)
def test_bytes_are_cast_before_anything_else(precision):
    graph = graph_of(precision)
    assert [node.op_type for node in graph.node if "rgb" in node.input] == ["Cast"]
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_int8_has_no_zero_points_and_no_integer_bias():
    graph = graph_of(PlanPrecision.INT8)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) > 50
    for node in pairs:
        zero_point = held[node.input[2]]
        assert zero_point.dtype == np.int8
        assert not zero_point.any()
    assert not [name for name, values in held.items() if values.dtype == np.int32]


def test_float16_computes_convolutions_in_float16_and_the_balance_of_colours_in_float32():
    body = prepared((SHIPPED / CLASSIFIERS[-1]).read_bytes(), PlanPrecision.FP16)
    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(body), strict_mode=True).graph
    values = (*graph.value_info, *graph.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    computed = {
        operator: {kinds[node.output[0]] for node in graph.node if node.op_type == operator}
        for operator in ("Conv", "Gemm", "TopK", "Reciprocal", "Softmax")
    }
    half, single = {TensorProto.FLOAT16}, {TensorProto.FLOAT}
    assert computed == {"Conv": half, "Gemm": half, "TopK": single, "Reciprocal": single, "Softmax": single}
    assert [node.op_type for node in graph.node].count("Cast") == 3  # bytes; into float16; out of it


def test_weights_stored_as_float16_are_folded():
    stored = onnx.load_model_from_string((SHIPPED / CLASSIFIERS[0]).read_bytes())
    halved = {tensor.name for tensor in stored.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    weights = {node.output[0] for node in stored.graph.node if set(node.input) & halved}
    assert len(weights) == len(halved) > 10
    graph = onnx.load_model_from_string(prepared(stored.SerializeToString(), PlanPrecision.FP32)).graph
    held = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert not halved & held.keys()
    assert {held[name] for name in weights} == {TensorProto.FLOAT}
    assert [node.op_type for node in graph.node].count("Cast") == 1


def test_int8_without_pictures_is_refused():
    with pytest.raises(DeploymentError, match="calibration"):
        prepared((SHIPPED / CLASSIFIERS[0]).read_bytes(), PlanPrecision.INT8)


@pytest.mark.parametrize("body", [b"", b"no graph", bytes(range(256))])
def test_what_is_no_graph_is_refused(body):
    with pytest.raises(DeploymentError, match="not an ONNX graph"):
        prepared(body, PlanPrecision.FP32)
