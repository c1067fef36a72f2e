"""TensorRT's loop on a device that defers its work and objects to races."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.model.errors import CapacityError, DeploymentError
from pipeline.model.geometry import Size
from pipeline.runtime.engines.engine_port import BatchRefused
from pipeline.runtime.tensorrt.batch_shapes import BatchShape, ShapeProfile, squares
from pipeline.runtime.tensorrt.inference_loop import InferenceLoop
from pipeline.runtime.tensorrt.stream_executor import MAX_CUDA_GRAPHS, LoadedPlan, StreamExecutor
from tests.support.fake_device import DeviceMisuse, FakeDevice, Step
from tests.support.fake_engine import FakeCudaEngine, open_on_fake_device

WEIGHTS = np.array([[3, -1], [-2, 2], [0.5, 1]], np.float32)
TILES = ShapeProfile(BatchShape(1, Size(8, 8)), BatchShape(4, Size(16, 16)), BatchShape(8, Size(32, 32)))


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """A file of softmax(colours · WEIGHTS) for each pixel: any N, H, W."""
    float_, bytes_ = TensorProto.FLOAT, TensorProto.UINT8
    nodes = [
        helper.make_node("Cast", ["rgb"], ["float"], to=float_),
        helper.make_node("Div", ["float", "white"], ["unit"]),
        helper.make_node("MatMul", ["unit", "weights"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=3),
        helper.make_node("Transpose", ["shares"], ["probabilities"], perm=[0, 3, 1, 2]),
    ]
    held = [
        numpy_helper.from_array(np.array(255, np.float32), "white"),
        numpy_helper.from_array(WEIGHTS, "weights"),
    ]
    taken = helper.make_tensor_value_info("rgb", bytes_, ["n", "h", "w", 3])
    given = helper.make_tensor_value_info("probabilities", float_, ["n", 2, "h", "w"])
    model = helper.make_model(
        helper.make_graph(nodes, "pixels", [taken], [given], held),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    file = tmp_path_factory.mktemp("graph") / "pixels.onnx"
    onnx.save(model, file)
    return file


def pictures(count, side=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def expected(batch):
    scores = batch.astype(np.float32) / 255 @ WEIGHTS
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return np.moveaxis(powers / powers.sum(-1, keepdims=True), 3, 1)


def is_right(answer, batch):
    return answer.dtype == np.float32 and np.allclose(answer, expected(batch), atol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 9, 23])
def test_batches_of_any_length_are_answered_in_their_order(graph, count):
    with open_on_fake_device(graph, TILES) as engine:
        batch = pictures(count)
        assert is_right(engine.run(batch), batch)


def test_the_copy_of_a_batch_overlaps_the_work_on_the_one_before(graph):
    device = FakeDevice()
    with open_on_fake_device(graph, TILES, device) as engine:
        engine.run(pictures(4))
        assert device.peak_under_way == 1
        engine.run(pictures(12))
    assert device.peak_under_way == 2


def test_a_batch_size_is_launched_as_a_graph_from_its_second_time_on(graph):
    device = FakeDevice()
    with open_on_fake_device(graph, squares(16, 4, 8), device) as engine:
        for turn in range(8):
            batch = pictures(4, seed=turn)
            assert is_right(engine.run(batch), batch)
    assert device.launches == 8 - 2  # each of two executors runs it once as it is


def test_answers_stay_right_when_buffers_grow_under_captured_graphs(graph):
    device = FakeDevice()
    with open_on_fake_device(graph, TILES, device) as engine:
        for turn, side in enumerate([8, 8, 8, 16, 8, 32, 16, 8, 8, 32, 32, 32]):
            batch = pictures(8, side, seed=turn)
            assert is_right(engine.run(batch), batch)
    assert device.launches > 0


def test_the_memory_of_outgrown_buffers_and_forgotten_shapes_is_given_back(graph):
    pixels = 4 * 32 * 32
    lane_bytes = 4096 + 2 * (pixels * 3 + pixels * 2 * 4)  # scratch; input and output, on host and device
    device = FakeDevice(memory_bytes=2 * lane_bytes)
    with open_on_fake_device(graph, TILES, device) as engine:
        for side in (8, 8, 16, 16, 24, 24, 32, 32):
            batch = pictures(4, side)
            assert is_right(engine.run(batch), batch)
    assert sum(memory.size_bytes for memory in device.memory.values()) == 0


def test_a_lane_keeps_few_shapes(graph):
    device = FakeDevice()
    cuda_engine = FakeCudaEngine(graph.read_bytes(), device)
    made = []

    def context():
        made.append(cuda_engine.create_execution_context())
        return made[-1]

    executor = StreamExecutor(LoadedPlan(context, 4096, str), device)
    sizes = [*range(1, MAX_CUDA_GRAPHS + 2)]
    for count in (max(sizes), *sizes, *sizes):
        executor.start(pictures(count))
        assert is_right(executor.finish(), pictures(count))
    assert len(made) > len(sizes)


def test_threads_get_their_own_answers(graph):
    with open_on_fake_device(graph, TILES) as engine, ThreadPoolExecutor(6) as threads:
        batches = [pictures(1 + seed % 11, 8 * (1 + seed % 3), seed) for seed in range(60)]
        answers = list(threads.map(engine.run, batches))
    assert all(is_right(answer, batch) for answer, batch in zip(answers, batches, strict=True))


@pytest.mark.parametrize(
    "shape", [(1, 40, 16, 3), (1, 4, 8, 3), (2, 16, 64, 3), (0, 16, 16, 3), (1, 16, 16, 4)]
)
def test_a_picture_outside_the_profile_is_refused(graph, shape):
    with open_on_fake_device(graph, TILES) as engine:
        with pytest.raises(BatchRefused):
            engine.run(np.zeros(shape, np.uint8))
        assert is_right(engine.run(pictures(2)), pictures(2))


def test_a_full_device_is_a_capacity_error_and_the_engine_lives_on(graph):
    device = FakeDevice(memory_bytes=60_000)
    with open_on_fake_device(graph, TILES, device) as engine:
        with pytest.raises(CapacityError):
            engine.run(pictures(4, 32))
        for _ in range(4):
            assert is_right(engine.run(pictures(2, 8)), pictures(2, 8))


class RefusingContext:
    """Refuses to compute while `refuses` is set."""

    def __init__(self, context, switch):
        self._context = context
        self._switch = switch

    def __getattr__(self, name):
        return getattr(self._context, name)

    def execute_async_v3(self, stream_handle):
        return not self._switch["refuses"] and self._context.execute_async_v3(stream_handle)


def test_a_refusal_names_its_reason_and_leaves_no_lane_behind(graph):
    device, switch = FakeDevice(), {"refuses": True}
    cuda_engine = FakeCudaEngine(graph.read_bytes(), device)
    plan = LoadedPlan(
        lambda: RefusingContext(cuda_engine.create_execution_context(), switch), 4096, lambda: "no kernel"
    )
    loop = InferenceLoop(plan, device, TILES)
    for _ in range(3):
        with pytest.raises(DeploymentError, match="no kernel"):
            loop.run(pictures(9))
    switch["refuses"] = False
    assert is_right(loop.run(pictures(9)), pictures(9))


class HaltingContext(RefusingContext):
    """Stands still in the middle of a batch until it is let go."""

    def execute_async_v3(self, stream_handle):
        self._switch["begun"].set()
        assert self._switch["go"].wait(60)
        return self._context.execute_async_v3(stream_handle)


def test_closing_waits_for_what_is_under_way_and_ends_the_engine(graph):
    device, switch = FakeDevice(), {"begun": threading.Event(), "go": threading.Event()}
    cuda_engine = FakeCudaEngine(graph.read_bytes(), device)
    plan = LoadedPlan(lambda: HaltingContext(cuda_engine.create_execution_context(), switch), 4096, str)
    loop = InferenceLoop(plan, device, TILES)
    with ThreadPoolExecutor(2) as threads:
        answer = threads.submit(loop.run, pictures(3))
        assert switch["begun"].wait(60)
        closed = threads.submit(loop.close)
        assert not answer.done()
        assert not closed.done()
        switch["go"].set()
        assert is_right(answer.result(60), pictures(3))
        closed.result(60)
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.run(pictures(1))


def test_an_engine_names_what_it_takes_and_gives(graph):
    with open_on_fake_device(graph, TILES) as engine:
        assert (engine.input.name, engine.input.dtype, engine.input.shape) == (
            "rgb", "uint8", (None, None, None, 3),
        )  # fmt: skip
        assert (engine.output.name, engine.output.dtype) == ("probabilities", "float32")
        assert str(engine.identity) == "tensorrt fake fake device fp32"


# What the fake device objects to: without these the tests above would prove nothing.


@pytest.fixture
def fake(graph):
    """A device, an uploaded picture's buffers, and a context that is ready to compute on them."""
    device = FakeDevice()
    context = FakeCudaEngine(graph.read_bytes(), device).create_execution_context()
    host, taken, given = device.pin(192), device.allocate(192), device.allocate(512)
    scratch = device.allocate(4096)
    context.set_input_shape("rgb", (1, 8, 8, 3))
    context.set_tensor_address("rgb", taken.address)
    context.set_tensor_address("probabilities", given.address)
    context.set_device_memory(scratch.address, 4096)
    return device, context, (host, taken, given, scratch)


def test_computing_on_what_was_never_copied_is_misuse(fake):
    device, context, _held = fake
    stream = device.open_stream()
    context.execute_async_v3(stream.handle)
    with pytest.raises(DeviceMisuse, match="0 were written"):
        device.record(stream).wait()


def test_computing_before_shape_or_addresses_are_set_is_misuse(graph):
    device = FakeDevice()
    context = FakeCudaEngine(graph.read_bytes(), device).create_execution_context()
    stream = device.open_stream()
    with pytest.raises(DeviceMisuse, match="shape"):
        context.execute_async_v3(stream.handle)
    context.set_input_shape("rgb", (1, 8, 8, 3))
    with pytest.raises(DeviceMisuse, match="address"):
        context.execute_async_v3(stream.handle)


def test_writing_a_host_buffer_that_is_being_copied_is_misuse(fake):
    device, _context, (host, taken, _given, _scratch) = fake
    stream = device.open_stream()
    host.write(pictures(1, 8))
    device.upload(host, taken, 192, stream)
    with pytest.raises(DeviceMisuse, match="host"):
        host.write(pictures(1, 8))


def test_reading_an_answer_before_its_event_is_misuse(fake):
    device, context, (host, taken, given, _scratch) = fake
    stream, answer = device.open_stream(), device.pin(512)
    host.write(pictures(1, 8))
    device.upload(host, taken, 192, stream)
    context.execute_async_v3(stream.handle)
    device.download(given, answer, 512, stream)
    with pytest.raises(DeviceMisuse, match="host"):
        answer.read((1, 2, 8, 8))
    device.record(stream).wait()
    assert is_right(answer.read((1, 2, 8, 8)), pictures(1, 8))


def test_two_streams_on_one_buffer_are_misuse(fake):
    device, context, (host, taken, _given, _scratch) = fake
    first, second = device.open_stream(), device.open_stream()
    host.write(pictures(1, 8))
    device.upload(host, taken, 192, first)
    with pytest.raises(DeviceMisuse, match="two streams"):
        context.execute_async_v3(second.handle)


def test_memory_given_back_too_early_is_misuse():
    device = FakeDevice()
    stream, memory = device.open_stream(), device.allocate(16)
    address = memory.address
    device.enqueue(stream.handle, Step(lambda: device.at(address), (address,), ()))
    del memory
    with pytest.raises(DeviceMisuse, match="no memory at"):
        device.record(stream).wait()
