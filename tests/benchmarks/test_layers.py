"""The profile by operation counts what the networks do."""

import re

import numpy as np
import pytest
from megengine import Tensor

from benchmarks import summary
from benchmarks.layers import Call, Profile, TimedKernels, main, profile, section
from official.vision.classification.ops.build import load_kernels
from official.vision.classification.resnet.complexity import Cost, complexity
from official.vision.classification.resnet.model import resnet18, resnext50_32x4d
from tests.kernels import kernels_or_skip

BUILDERS = {"resnet18": resnet18, "resnext50_32x4d": resnext50_32x4d}


@pytest.fixture(scope="module", autouse=True)
def _native_kernels():
    kernels_or_skip()


@pytest.mark.parametrize("arch", list(BUILDERS))
@pytest.mark.parametrize("mode", ["inference", "train"])
def test_operations_are_those_of_the_network(arch, mode):
    found = profile(arch, mode, "fp32", batch=2, size=64, rounds=2)
    model = BUILDERS[arch]()
    first = Cost(3, 64, 64).conv(model.conv1).macs
    expected = 2 * summary.operations(complexity(model, 64).macs, first, mode)
    for calls in found.calls:
        assert sum(call.flop for call in calls) == expected
    assert len(found.steps) == len(found.calls) == 2
    seconds = [group.seconds for group in found.by(lambda call: call.name).values()]
    assert seconds == sorted(seconds, reverse=True)
    assert min(seconds) >= 0 and sum(seconds) > 0
    updates = [call for call in found.calls[0] if call.name == "Descend"]
    assert len(updates) == (0 if mode == "inference" else len(list(model.parameters())))


def test_waiting_is_no_part_of_a_kernels_time():
    kernels = load_kernels(threads=1)
    maps = [Tensor(np.ones((1, 64, 64, 16), np.float32)) for _ in range(2)]
    for waiting in (0.0, 1e-9, 1e3):
        timed = TimedKernels(kernels, waiting)
        (found,) = timed("Add", *maps, relu=0)
        assert found.numpy().max() == 2
        (call,) = timed.calls
        assert (call.seconds == 0) == (waiting == 1e3)


@pytest.mark.parametrize("asked", [True, False])
def test_page(tmp_path, capsys, monkeypatch, asked):
    """In the file that is asked for and nowhere else, or on standard output."""
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "layers.md"
    words = ["--arch", "resnet18", "--precision", "fp32", "--rounds", "1"]
    words += ["--document", str(page)] if asked else []
    assert main([*words, "--batch", "2", "--size", "32"]) == 0
    printed = capsys.readouterr().out
    assert [each.name for each in tmp_path.iterdir()] == (["layers.md"] if asked else [])
    text = page.read_text(encoding="utf-8") if asked else printed
    assert bool(printed) != asked
    assert "](" not in text  # a link would lead nowhere from most places
    assert "batches of 2 images of 32\npixels, medians of 1 steps" in text
    for limit in ("CPU", "threads", "date", "most in fp32, by .*", "memory, adding .*"):
        assert re.search(rf"^\| {limit} \| .+ \|$", text, re.MULTILINE), limit
    assert re.findall("^## (.*):", text, re.MULTILINE) == [
        "ResNet-18, inference, fp32",
        "ResNet-18, training, fp32",
    ]
    row = next(line for line in text.splitlines() if line.startswith("| 7x7, 3 to 64, stride 2"))
    assert "from 32 px | Convolve | 1 |" in row


def test_bytes_are_operands_and_results():
    before, after = 2 * 64 * 32 * 32, 2 * 64 * 16 * 16
    found = profile("resnet18", "inference", "fp32", batch=2, size=64, rounds=1)
    (pool,) = [call for call in found.calls[0] if call.name == "MaxPool"]
    assert pool.size == 4 * (before + after)
    found = profile("resnet18", "training", "fp32", batch=2, size=64, rounds=1)
    (pool,) = [call for call in found.calls[0] if call.name == "MaxPoolPlaces"]
    assert pool.size == 4 * (before + after) + after  # and a byte that says where each maximum was


def test_a_kernel_that_takes_no_time_has_no_rate():
    call = Call("Add", None, 0.0, 0, 64)
    text = section("none", Profile([1e-3], [[call]]), 100.0)
    assert "| Add | 1 | 0.0 | 0 % |  |  |  |" in text
