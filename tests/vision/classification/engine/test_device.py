import megengine
import numpy as np
import pytest
from megengine.core._imperative_rt.core2 import apply
from megengine.core.ops import builtin

from official.vision.classification.engine import device
from official.vision.classification.engine.device import choose_device
from official.vision.classification.errors import UsageError
from official.vision.classification.ops.gemm import GemmOps
from official.vision.classification.ops.plain import PlainOps
from official.vision.classification.resnet.cifar import resnet20_cifar


def test_reductions_queued_back_to_back_are_right():
    """MegEngine 1.13's other CPU devices get 2 to 13 in 600 of these wrong (xpux, cpu0)."""
    rng = np.random.default_rng(0)
    for shape, target in (((8, 16, 6, 6), (1, 16, 1, 1)), ((64, 10), (1,)), ((64, 99), (1, 99))):
        values = rng.normal(size=shape).astype(np.float32)
        axes = tuple(i for i in range(len(shape)) if len(target) < len(shape) or target[i] == 1)
        expected = values.astype(np.float64).sum(axes).reshape(target)
        tensor, wanted = megengine.Tensor(values), megengine.Tensor(np.array(target, np.int32))
        for _ in range(300):
            queued = [apply(builtin.Reduce(mode="sum"), tensor, wanted)[0] for _ in range(8)]
            assert np.allclose(queued[4].numpy(), expected, rtol=1e-3, atol=1e-3)


def test_tensors_live_on_the_device_without_a_queue():
    assert str(megengine.Tensor([1.0]).device) == "cpu:default"


def test_choice_of_device(monkeypatch):
    monkeypatch.setattr(device, "count_gpus", lambda: 0)
    assert choose_device("auto", 1) == choose_device("cpu", 1) == "cpu"
    with pytest.raises(UsageError, match="no GPU that MegEngine can use"):
        choose_device("gpu", 1)
    with pytest.raises(UsageError, match="--ngpus 2"):
        choose_device("auto", 2)
    monkeypatch.setattr(device, "count_gpus", lambda: 4)
    assert choose_device("auto", 4) == choose_device("gpu", 1) == "gpu"
    assert choose_device("cpu", 1) == "cpu"
    with pytest.raises(UsageError, match="--ngpus 5: there are 4 GPUs"):
        choose_device("gpu", 5)


def test_threads_of_the_kernels(monkeypatch):
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert (device.cpu_threads(), device.blas_threads()) == (8, 7)
    for wanted, threads in (
        *(("3", 3), ("", 8), ("0", 8), ("many", 8), ("-1", 8), ("²", 8), ("1e3", 8)),
        *(("99999999999999", 8), (" 4 ", 4), ("4,2", 4), (",2", 8)),
    ):
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
        assert (device.cpu_threads(), device.blas_threads()) == (threads, max(1, threads - 1))


@pytest.mark.parametrize("where", ["cpu", "gpu"])
@pytest.mark.parametrize("word", ["int4", "fp16", "", "BF16", "float32"])
def test_a_word_that_is_no_precision(where, word):
    with pytest.raises(UsageError, match=f"^precision '{word}': expected one of fp32, bf16"):
        device.prepare(resnet20_cifar(), where, word)


def test_networks_for_the_cpu_get_its_kernels(monkeypatch):
    network = resnet20_cifar()
    assert device.prepare(network, "gpu") is network and type(network.ops) is PlainOps
    for wanted, ops in (("numpy", GemmOps), ("megengine", PlainOps)):
        monkeypatch.setenv("RESNET_KERNELS", wanted)
        assert device.prepare(network, "cpu") is network
        assert type(network.ops) is type(network.layer1[0].ops) is ops


def test_kernels_and_precisions_that_are_not_there(monkeypatch):
    with pytest.raises(UsageError, match="precision bf16 is for CPUs; on a GPU, set amp.enabled"):
        device.prepare(resnet20_cifar(), "gpu", "bf16")
    monkeypatch.setenv("RESNET_KERNELS", "fastest")
    with pytest.raises(UsageError, match="must be native, numpy or megengine, got 'fastest'"):
        device.prepare(resnet20_cifar(), "cpu")
    monkeypatch.setenv("RESNET_KERNELS", "numpy")
    with pytest.raises(UsageError, match="precision bf16 needs the native kernels"):
        device.prepare(resnet20_cifar(), "cpu", "bf16")
