"""Compiled networks against the same layer by layer with MegEngine's kernels."""

import copy
import json
import multiprocessing
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import megengine.module as M
import numpy as np
import pytest
from megengine import Tensor
from megengine.autodiff import GradManager

from official.vision.classification.ops import accelerate
from official.vision.classification.ops import compiled as of_compiled
from official.vision.classification.ops import plan as of_plan
from official.vision.classification.ops.accelerate import attach
from official.vision.classification.ops.build import load_kernels
from official.vision.classification.ops.compiled import Compiled, Compiler
from official.vision.classification.ops.plain import Layer, PlainOps
from official.vision.classification.ops.quantize import LayerRange
from official.vision.classification.ops.recorder import Recorder
from tests.vision.classification.resnet.reference import randomise_statistics

from .test_native_networks import SMALL, build
from .values import error, normal


class Compiling(PlainOps):
    def __init__(self, kernels, *how):
        self.whole = Compiler(kernels, *how)


def need(kernels, precision):
    """Skip where the processor, or what the kernels were compiled for, has no such instructions."""
    if not kernels.convolves(of_compiled.ELEMENTS[precision]):
        pytest.skip(f"no instructions for {precision}")


def pair(make, kernels, *how, **options):
    """The same network twice, by MegEngine's kernels and compiled."""
    if how:
        need(kernels, how[0])
    plain = build(make, PlainOps(), training=False, **options)
    return plain, attach(copy.deepcopy(plain), Compiling(kernels, *how))


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.parametrize("size", [32, 45])
def test_networks_and_their_features(kernels, caplog, family, size):
    plain, compiled = pair(SMALL[family], kernels)
    for count in (1, 3):
        x = Tensor(normal(count, 3, size, size))
        assert error(compiled(x).numpy(), plain(x).numpy()) < 1e-5
        found, expected = compiled.extract_features(x), plain.extract_features(x)
        assert list(found) == list(expected)
        for name in expected:
            assert error(found[name].numpy(), expected[name].numpy()) < 1e-5
    assert not caplog.records


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.parametrize("cache", [1, 200_000, 1_000_000])
def test_some_images_at_once(kernels, monkeypatch, family, cache):
    """Where maps do not fit the cache the steps between maps of a size go by parts of the batch."""
    monkeypatch.setattr(of_plan, "_CACHE", cache)
    monkeypatch.setattr(of_plan, "_HEAVY", 1 << 30)
    plain, compiled = pair(SMALL[family], kernels)
    x = Tensor(normal(5, 3, 45, 32))
    assert error(compiled(x).numpy(), plain(x).numpy()) < 1e-5
    found, expected = compiled.extract_features(x), plain.extract_features(x)
    for name in expected:
        assert error(found[name].numpy(), expected[name].numpy()) < 1e-5
    plans = compiled.ops.whole.compiled(compiled)._plans.values()
    at_once = {share.images for plan in plans for share in plan._shares}
    assert max(at_once) == 1 if cache == 1 else cache < 1_000_000 or max(at_once) > 1
    assert cache > 1 or max(plan._bytes for plan in plans) < 3 * 45 * 32 * 64 * 4


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("count", [2, 6, 9])
def test_threads_with_images_of_their_own(kernels, precision, count):
    """Two threads, each of which takes images through the network's steps, give what one gives."""
    x = normal(count, 3, 64, 64)
    family = SMALL["v1d"]
    _, alone = pair(family, kernels, precision, x.transpose(0, 2, 3, 1))
    expected = alone(x)
    try:
        together = pair(family, load_kernels(2), precision, x.transpose(0, 2, 3, 1))[1]
        found = together(x)
        plan = next(iter(together.ops.whole.compiled(together)._plans.values()))
        for _ in range(20):
            assert np.array_equal(together(x), found)
    finally:
        load_kernels(1)
    assert any(share.apart == 2 for share in plan._shares)
    assert error(found, expected) < (1e-5 if precision == "fp32" else 3e-2)


CONVOLUTIONS = [
    # in, out, kernel, stride, padding, dilation, groups, height, width
    (3, 64, 7, 2, 3, 1, 1, 30, 21),
    (16, 16, 3, 1, 1, 1, 1, 30, 31),  # by Winograd's algorithm, as the next two
    (64, 80, 3, 1, 1, 1, 1, 21, 23),
    (32, 48, 3, 1, 0, 1, 1, 26, 27),
    (130, 64, 3, 2, 1, 1, 1, 9, 8),
    (512, 64, 3, 1, 1, 1, 1, 5, 5),  # its weight in several chunks
    (24, 100, 1, 1, 0, 1, 1, 13, 11),
    (8, 8, 3, 1, 2, 2, 1, 12, 9),
    (32, 32, 3, 1, 1, 1, 8, 9, 9),
    (64, 128, 3, 2, 1, 1, 4, 10, 9),
    (16, 24, (3, 1), (1, 2), (1, 0), 1, 1, 9, 8),
]


def network_of(case, relu=True):
    inputs, outputs, kernel, stride, padding, dilation, groups, *_ = case

    class Net(Layer):
        def __init__(self):
            super().__init__()
            self.conv = M.Conv2d(
                inputs, outputs, kernel, stride, padding, dilation, groups, bias=False
            )
            self.bn = M.BatchNorm2d(outputs)

        def forward(self, x):
            return self.ops.whole(self, Net.compute, x)

        def compute(self, x):
            return self.ops.conv_norm(self.conv, self.bn, x, relu=relu)

    network = randomise_statistics(Net())
    network.eval()
    return network


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_convolutions(kernels, case, precision):
    need(kernels, precision)
    network = network_of(case)
    x = np.repeat(normal(1, case[0], *case[-2:]), 2, axis=0)  # none is clipped
    expected = network(Tensor(x)).numpy()
    compiled = Compiled(kernels, network, precision, x.transpose(0, 2, 3, 1))
    found = compiled(type(network).compute, np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    most = {"fp32": 1e-5, "bf16": 2e-2, "int8": 3e-2}[precision]
    assert error(found.transpose(0, 3, 1, 2), expected) < most


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("family", ["v1", "v1d", "v2", "cifar"])
def test_maps_between_layers_are_rounded_and_nothing_else(kernels, precision, family):
    """Where their channels lie, what is added to them, their maximum: all of it in small types."""
    x = np.repeat(normal(1, 3, 64, 64), 2, axis=0)  # none is clipped
    plain, compiled = pair(SMALL[family], kernels, precision, x.transpose(0, 2, 3, 1))
    expected, found = plain.extract_features(Tensor(x)), compiled.extract_features(Tensor(x))
    for name in expected:
        assert error(found[name].numpy(), expected[name].numpy()) < 0.15


@pytest.mark.parametrize("family", ["v1d", "v2", "cifar"])
def test_what_images_gave_takes_their_place(kernels, caplog, family):
    """Ranges that were written to a file and read from it, for images of another size, too."""
    x = normal(4, 3, 64, 64)
    rows = x.transpose(0, 2, 3, 1)
    _, by_images = pair(SMALL[family], kernels, "int8", rows)
    forward = type(by_images).forward.__wrapped__
    measured = Compiled(kernels, by_images, "int8", rows).layer_ranges(forward)
    stated = tuple(LayerRange(*row) for row in json.loads(json.dumps(measured)))
    _, compiled = pair(SMALL[family], kernels, "int8", stated)
    for images in (x, x[:1, :, 8:40]):
        assert np.array_equal(compiled(images), by_images(images))
    assert compiled.extract_features(x).keys() == by_images.extract_features(x).keys()
    assert not caplog.messages
    _, others = pair(SMALL[family], kernels, "int8", stated[:2] + stated[3:])
    others(x)
    assert "the ranges that are stated are of other layers" in caplog.messages[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("family", ["v1", "v1d", "v2", "cifar"])
def test_nan_stays_nan_in_its_image(kernels, precision, family):
    x = normal(3, 3, 32, 32)
    _, compiled = pair(SMALL[family], kernels, precision, x.transpose(0, 2, 3, 1))
    x[1, 2, 7, 9] = np.nan
    logits = compiled(x)
    assert np.isnan(logits[1]).all()
    assert np.isfinite(logits[[0, 2]]).all()


def test_changes_are_noticed(kernels):
    plain, compiled = pair(SMALL["v1"], kernels)
    x = normal(2, 3, 32, 32)
    tensor = Tensor(x)

    def agree():
        return error(compiled(x), plain(tensor).numpy()) < 1e-5

    assert agree()
    for network in (plain, compiled):
        network.layer1[0].conv1.weight *= 2
    assert agree()
    for network in (plain, compiled):
        network.layer2[0].bn1.running_mean[:] = 0.5
    assert agree()
    for network in (plain, compiled):
        network.fc.bias[0] = 7
    assert agree()
    other = M.Linear(plain.fc.in_features, 4)
    plain.fc = compiled.fc = other
    assert compiled(x).shape == (2, 4)
    assert agree()
    compiled.load_state_dict(plain.state_dict())
    assert agree()


def test_training_and_gradients_are_not_compiled(kernels):
    plain, compiled = pair(SMALL["v1"], kernels)
    x = Tensor(normal(4, 3, 32, 32))
    compiled(x)
    plain.train(), compiled.train()
    assert error(compiled(x).numpy(), plain(x).numpy()) < 1e-5
    compiled.eval()
    with GradManager().attach(compiled.parameters()) as manager:
        manager.backward(compiled(x).sum())
    assert np.abs(compiled.conv1.weight.grad.numpy()).max() > 0


def test_a_hook_is_called(kernels, caplog):
    plain, compiled = pair(SMALL["v1"], kernels)
    x, seen = Tensor(normal(1, 3, 32, 32)), []
    compiled(x)
    compiled.layer1[0].register_forward_hook(lambda *_: seen.append(1))
    for _ in range(2):
        assert error(compiled(x).numpy(), plain(x).numpy()) < 1e-5
    assert len(seen) == 2
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["inference layer by layer, which is slower: a layer has a hook"]


def test_own_norms_go_layer_by_layer(kernels, caplog):
    plain, compiled = pair(SMALL["v1"], kernels, norm=lambda c: M.GroupNorm(4, c))
    x = Tensor(normal(1, 3, 32, 32))
    assert error(compiled(x).numpy(), plain(x).numpy()) < 1e-5
    assert "inference layer by layer" in caplog.text
    assert error(compiled(x.numpy()), plain(x).numpy()) < 1e-5
    with pytest.raises(RuntimeError, match="in the thread that has imported it"):
        in_a_thread(lambda: compiled(normal(1, 3, 32, 32)))


def in_a_thread(call):
    """What ``call`` returns or raises in a thread that is not the main one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


@pytest.mark.parametrize("family", SMALL)
def test_any_thread_makes_plans(kernels, family):
    """Also for shapes that no thread has seen, and of other methods, when weights were read."""
    plain, compiled = pair(SMALL[family], kernels)
    compiled(normal(1, 3, 32, 32))
    x = normal(2, 3, 45, 32)
    assert error(in_a_thread(lambda: compiled(x)), plain(Tensor(x)).numpy()) < 1e-5
    features = in_a_thread(lambda: compiled.extract_features(x))
    for name, maps in plain.extract_features(Tensor(x)).items():
        assert error(features[name], maps.numpy()) < 1e-5
    compiled.layer1[0].conv1.weight *= 2
    with pytest.raises(RuntimeError, match="its weights are not known: use it first in the thread"):
        in_a_thread(lambda: compiled(x))


def test_planning_is_not_seen_by_other_threads(kernels, monkeypatch):
    """A network that is being recorded still computes."""
    plain, compiled = pair(SMALL["v1"], kernels)
    x, seen = normal(1, 3, 32, 32), []
    relu = Recorder.relu

    def look(recorder, value):
        seen.append(compiled.ops)
        return relu(recorder, value)

    monkeypatch.setattr(Recorder, "relu", look)
    compiled(x)
    assert seen and not any(isinstance(ops, Recorder) for ops in seen)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_arrays_may_lie_in_any_order(kernels, precision):
    x = normal(2, 3, 45, 32)
    _, compiled = pair(SMALL["v1"], kernels, precision, x.transpose(0, 2, 3, 1))
    expected = compiled(x)
    rows = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    wider = np.zeros((2, 3, 45, 40), np.float32)
    wider[..., :32] = x
    for same in (
        rows,
        wider[..., :32],
        x.astype(np.float64),
        x.transpose(0, 1, 3, 2).copy().swapaxes(2, 3),
    ):
        assert np.array_equal(compiled(same), expected)


def test_a_forked_process_computes(kernels):
    _, compiled = pair(SMALL["v1"], kernels)
    x = normal(2, 3, 32, 32)
    expected = compiled(x)
    process = multiprocessing.get_context("fork").Process(
        target=lambda: sys.exit(not np.array_equal(compiled(x), expected))
    )
    process.start()
    process.join(60)
    assert process.exitcode == 0


def test_large_batches_are_computed_in_parts(kernels, monkeypatch):
    """So that memory is bounded; the result is what parts of the batch give."""
    _, compiled = pair(SMALL["cifar"], kernels)
    x = normal(7, 3, 32, 32)
    monkeypatch.setattr(of_compiled, "_PIXELS", 3 * 32 * 32)
    expected = [compiled(x[i : i + 3]) for i in range(0, 7, 3)]
    assert np.array_equal(compiled(x), np.concatenate(expected))
    assert all(len(maps) == 7 for maps in compiled.extract_features(x).values())
    shapes = {shape[0] for _, shape in compiled.ops.whole.compiled(compiled)._plans}
    assert shapes == {1, 3}


def test_many_threads_and_plans(kernels):
    """Every result is what one thread gets, to the bit."""
    networks = [pair(SMALL[family], kernels)[1] for family in ("v1", "cifar", "next")]
    inputs = [normal(count, 3, 32, 32, seed=count) for count in (1, 2, 5)]
    expected = {(i, j): n(x) for i, n in enumerate(networks) for j, x in enumerate(inputs)}
    wrong = []

    def work(seed):
        for step in range(6):
            i, j = (seed + step) % 3, (seed * step) % 3
            if not np.array_equal(networks[i](inputs[j]), expected[i, j]):
                wrong.append((i, j))

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_what_does_not_fit_is_refused_as_ever(kernels):
    _, compiled = pair(SMALL["v1"], kernels)
    for call in (compiled, lambda x: in_a_thread(lambda: compiled(x))):
        with pytest.raises((RuntimeError, ValueError)):
            call(normal(1, 4, 32, 32))
        with pytest.raises((RuntimeError, ValueError, AssertionError)):
            call(normal(3, 32, 32))


def test_compile(kernels, monkeypatch):
    network = build(SMALL["v1"], PlainOps(), training=True)
    x = normal(2, 3, 32, 32)
    assert accelerate.compile(network, threads=1) is network
    assert not network.training
    found = network(x)
    assert isinstance(found, np.ndarray)
    assert np.array_equal(network(Tensor(x)).numpy(), found)
    assert error(found, accelerate.detach(network)(Tensor(x)).numpy()) < 1e-5
    with pytest.raises(ValueError, match="^precision 'int4': expected one of fp32, bf16, int8"):
        accelerate.compile(network, "int4")
    with pytest.raises(ValueError, match="int8 needs images to calibrate with"):
        accelerate.compile(network, "int8")
    monkeypatch.setattr(of_compiled, "processor_flags", lambda: ["avx2"])
    for precision in ("bf16", "int8"):
        with pytest.raises(ValueError, match=f"precision {precision}: this CPU has no "):
            accelerate.compile(network, precision, x)
