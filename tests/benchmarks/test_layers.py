"""The profile by operation counts what the networks do."""

import re

import pytest

from benchmarks import summary
from benchmarks.layers import main, profile
from official.vision.classification.ops.build import KernelsUnavailable, load_kernels
from official.vision.classification.resnet.complexity import Cost, complexity
from official.vision.classification.resnet.model import resnet18, resnext50_32x4d

BUILDERS = {"resnet18": resnet18, "resnext50_32x4d": resnext50_32x4d}


@pytest.fixture(scope="module", autouse=True)
def _native_kernels():
    try:
        load_kernels(threads=1)
    except KernelsUnavailable as reason:
        if "no C++ compiler" in str(reason):  # all else is an error
            pytest.skip(str(reason))
        raise


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
    assert 0 < sum(seconds) < max(found.steps)


def test_page(tmp_path):
    page = tmp_path / "layers.md"
    words = ["--arch", "resnet18", "--precision", "fp32", "--rounds", "1", "--document", str(page)]
    assert main([*words, "--batch", "2", "--size", "32"]) == 0
    text = page.read_text(encoding="utf-8")
    assert re.findall("^## (.*):", text, re.MULTILINE) == [
        "ResNet-18, inference, fp32",
        "ResNet-18, training, fp32",
    ]
    row = next(line for line in text.splitlines() if line.startswith("| 7x7, 3 to 64, stride 2"))
    assert "from 32 px | ConvBias | 1 |" in row


def test_bytes_are_operands_and_results():
    before, after = 2 * 64 * 32 * 32, 2 * 64 * 16 * 16
    found = profile("resnet18", "inference", "fp32", batch=2, size=64, rounds=1)
    (pool,) = [call for call in found.calls[0] if call.name == "MaxPool"]
    assert pool.size == 4 * (before + after)
    found = profile("resnet18", "training", "fp32", batch=2, size=64, rounds=1)
    (pool,) = [call for call in found.calls[0] if call.name == "MaxPoolPlaces"]
    assert pool.size == 4 * (before + after) + after  # and a byte that says where each maximum was
