import logging

import megengine.module as M
import numpy as np
import pytest
from megengine import Parameter

from official.vision.classification.ops import accelerate, compiled
from official.vision.classification.ops.accelerate import attach, cpu_ops, detach
from official.vision.classification.ops.build import KernelsUnavailable
from official.vision.classification.ops.gemm import GemmOps
from official.vision.classification.ops.native import NativeOps
from official.vision.classification.ops.plain import Layer, PlainOps


@pytest.fixture()
def without_kernels(monkeypatch):
    def load(threads):
        raise KernelsUnavailable("no C++ compiler (g++) was found")

    monkeypatch.delenv("RESNET_KERNELS", raising=False)
    monkeypatch.setattr(accelerate, "load_kernels", load)


@pytest.mark.parametrize("value", [None, "native"])
def test_native_kernels_are_the_first_choice(kernels, monkeypatch, caplog, value):
    monkeypatch.delenv("RESNET_KERNELS", raising=False)
    if value is not None:
        monkeypatch.setenv("RESNET_KERNELS", value)
    found = cpu_ops(threads=1)
    assert type(found) is NativeOps
    assert found.name == "native kernels in float32, 1 thread(s)"
    assert not caplog.records


@pytest.mark.parametrize(("value", "kind"), [("numpy", GemmOps), ("megengine", PlainOps)])
def test_others_on_demand(without_kernels, monkeypatch, caplog, value, kind):
    monkeypatch.setenv("RESNET_KERNELS", value)
    assert type(cpu_ops(threads=1)) is kind
    assert not caplog.records
    with pytest.raises(
        ValueError, match=f"needs the native kernels, and RESNET_KERNELS is {value}"
    ):
        cpu_ops(threads=1, half=True)


@pytest.mark.parametrize("value", ["", "Native", "fast"])
def test_a_value_that_means_nothing(monkeypatch, value):
    monkeypatch.setenv("RESNET_KERNELS", value)
    with pytest.raises(ValueError, match="must be native, numpy or megengine, got '" + value):
        cpu_ops(threads=1)


def test_without_kernels_it_is_slow_and_says_so_in_one_line(without_kernels, caplog):
    with caplog.at_level(logging.WARNING):
        assert type(cpu_ops(threads=1)) is GemmOps
    (record,) = caplog.records
    assert record.getMessage() == (
        "no native kernels, so the CPU will be slow: no C++ compiler (g++) was found"
    )


def test_bfloat16_does_not_fall_back(without_kernels):
    with pytest.raises(ValueError, match="^precision bf16 needs the native kernels: no C"):
        cpu_ops(threads=1, half=True)


def test_bfloat16_needs_a_cpu_that_has_it(kernels, monkeypatch):
    monkeypatch.setattr(compiled, "processor_flags", lambda: ["avx512f"])
    with pytest.raises(ValueError, match="this CPU has no bfloat16 instructions"):
        NativeOps(kernels, half=True)
    monkeypatch.setattr(compiled, "processor_flags", lambda: ["avx512f", "avx512_bf16"])
    assert NativeOps(kernels, half=True).name == "native kernels in bfloat16, 1 thread(s)"


class Block(Layer):
    def __init__(self, device):
        super().__init__()
        self.inner = M.Linear(2, 2)
        self.scale = Parameter(np.ones(2, np.float32), device=device)

    def forward(self, x):
        return self.ops.linear(self.inner, x) * self.scale


def test_attach_refuses_another_device(native):
    model = Block("cpu0")
    with pytest.raises(ValueError, match="native kernels work on 'cpu:default' only") as caught:
        attach(model, native)
    assert "cpu0" in str(caught.value)
    assert type(model.ops) is PlainOps
    assert attach(model, GemmOps()).ops.name == "MegEngine's kernels, filter gradients by numpy"
    assert detach(model).ops.name == "MegEngine's kernels"
    assert attach(Block("cpu:default"), native).ops is native
