#!/usr/bin/env python3
"""Where the time of a step goes: a profile of the native kernels by operation and layer.

python benchmarks/layers.py --document layers.md

Every other step is profiled: every kernel is waited for, before and after, and what that takes
for one that does nothing is taken off its time. The steps between are timed as they are; what is
left of them beside the kernels is Python and MegEngine's own operations. It wants a machine that
does nothing else.
"""

import argparse
import statistics
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import megengine
import numpy as np
from megengine import Tensor
from megengine.core.tensor.dtype import bfloat16

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import machine  # noqa: E402
from benchmarks.peak import Peak  # noqa: E402
from benchmarks.report import NAMES, table  # noqa: E402
from benchmarks.worker_megengine import images_of, random_batch, step_of  # noqa: E402
from official.vision.classification.engine.device import prepare, use_device  # noqa: E402
from official.vision.classification.engine.schema import InferencePrecision, Precision  # noqa: E402
from official.vision.classification.errors import UserError  # noqa: E402
from official.vision.classification.ops.build import Kernels, Number  # noqa: E402
from official.vision.classification.ops.native import NativeOps  # noqa: E402
from official.vision.classification.ops.recorder import Node  # noqa: E402
from official.vision.classification.ops.steps import KINDS  # noqa: E402
from official.vision.classification.zoo.models import ARCHS  # noqa: E402

STREAM = (64, 56, 56, 512)  # a map of 411 MB in float32, which no cache holds

WIDTHS = {"fp32": 4, "bf16": 2, "int8": 1}  # bytes of an element

PAGE = """# Where the time goes

The native kernels one by one, by `python benchmarks/layers.py`: batches of {batch} images of {size}
pixels, medians of {rounds} steps. Each was waited for, which takes {waiting:.2f} ms for one that
does nothing; so much is taken off. The steps' own times are those of steps between, in which
nothing is waited for: Python then works beside the kernels. How the networks do beside others is
in docs/benchmarks.md.

{limits}

GFLOP/s count the multiply-adds of the direct algorithm as two. Winograd's (3x3, stride 1, float32)
does with about a third of them, and can therefore exceed the peak. GB/s are what an operation must
read and write at least: every operand and every result once. What fits the caches may exceed the
memory's rate.
"""


class Call(NamedTuple):
    """What one call of a kernel did."""

    name: str
    layer: Optional[str]  # of a convolution: its shape in words
    seconds: float
    flop: int  # of convolutions; 0 for others
    size: int  # bytes of operands and results


class Group(NamedTuple):
    """What several calls did in a step."""

    calls: int
    seconds: float  # the median of the steps
    flop: int
    size: int


@dataclass
class Profile:
    """The calls of several steps, and how long steps took in which nothing was waited for."""

    steps: List[float] = field(default_factory=list)
    calls: List[List[Call]] = field(default_factory=list)

    def by(self, key: Callable[[Call], Any]) -> Dict[Any, Group]:
        """The calls for which ``key`` says the same, the longest first."""
        groups: Dict[Any, List[int]] = {}
        for place, call in enumerate(self.calls[0]):
            groups.setdefault(key(call), []).append(place)
        found = {name: self._group(places) for name, places in groups.items()}
        return dict(sorted(found.items(), key=lambda item: -item[1].seconds))

    def _group(self, places: List[int]) -> Group:
        """The calls at these places of every step."""
        seconds = [sum(step[place].seconds for place in places) for step in self.calls]
        first = [self.calls[0][place] for place in places]
        flop, size = sum(call.flop for call in first), sum(call.size for call in first)
        return Group(len(places), statistics.median(seconds), flop, size)


class TimedKernels:
    """Stands before the kernels and waits for each.

    Args:
        waiting: seconds that a kernel which does nothing would take.
    """

    def __init__(self, kernels: Kernels, waiting: float):
        self._kernels = kernels
        self._waiting = waiting
        self.threads = kernels.threads
        self.calls: List[Call] = []

    def __call__(self, name: str, *inputs: Tensor, **params: Number) -> List[Tensor]:
        seconds, outputs = _timed(self._kernels, name, *inputs, **params)
        seconds = max(0.0, seconds - self._waiting)
        layer, flop = _convolution(name, inputs, outputs, params)
        size = sum(map(_bytes, (*inputs, *outputs)))
        self.calls.append(Call(name, layer, seconds, flop, size))
        return outputs


def _timed(
    kernels: Kernels, name: str, *inputs: Tensor, **params: Number
) -> Tuple[float, List[Tensor]]:
    """How long a call takes, waiting included, and what it returns."""
    megengine._full_sync()
    started = time.perf_counter()
    outputs = kernels(name, *inputs, **params)
    megengine._full_sync()
    return time.perf_counter() - started, outputs


def waiting(kernels: Kernels) -> float:
    """Seconds of a call that does nothing, the median of a hundred."""
    few = Tensor(np.ones((1, 1, 1, 1), np.float32))
    return statistics.median(_timed(kernels, "Add", few, few, relu=0)[0] for _ in range(100))


def _bytes(tensor: Tensor) -> int:
    width = 2 if tensor.dtype == bfloat16 else np.dtype(tensor.dtype).itemsize
    return int(np.prod(tensor.shape)) * width


def _convolution(
    name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], params: Dict[str, Number]
) -> Tuple[Optional[str], int]:
    """Which layer a call computes, in words, and its floating-point operations."""
    if not name.startswith("Conv"):
        return None, 0
    if name.startswith("ConvData"):
        out, weight, source = inputs[0], inputs[1], outputs[0]
    elif name.startswith("ConvFilter"):
        source, out, weight = inputs[:3]
    else:
        source, weight, out = inputs[0], inputs[1], outputs[0]
    height, width = weight.shape[-2:]
    channels_in, channels_out = source.shape[-1], out.shape[-1]
    groups = weight.shape[0] if weight.ndim == 5 else 1
    macs = int(np.prod(out.shape)) * (channels_in // groups) * height * width
    words = f"{height}x{width}, {channels_in} to {channels_out}"
    if params["stride_h"] > 1:
        words += f", stride {params['stride_h']}"
    return f"{words}, from {source.shape[1]} px", 2 * macs


def profile(
    arch: str, mode: str, precision: InferencePrecision, batch: int, size: int, rounds: int
) -> Profile:
    """Run a network and time its kernels."""
    if mode == "inference":
        return profile_inference(arch, precision, batch, size, rounds)
    assert precision != "int8"  # which is for inference
    return profile_training(arch, precision, batch, size, rounds)


def profile_inference(
    arch: str, precision: InferencePrecision, batch: int, size: int, rounds: int
) -> Profile:
    """By the steps of the compiled network."""
    images = images_of(batch, size)
    model = prepare(ARCHS[arch](), "cpu", precision, images if precision == "int8" else None)
    model.eval()
    compiled, forward = model.ops.compiled(model), type(model).forward.__wrapped__
    rows = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    found = Profile()
    for number in range(-2, rounds):
        started = time.perf_counter()
        compiled(forward, rows)
        seconds = time.perf_counter() - started
        calls: List[Call] = []

        def note(kind: int, node: Node, spent: float, calls: List[Call] = calls) -> None:
            calls.append(_step(kind, node, spent, WIDTHS[precision]))

        compiled(forward, rows, note)
        if number >= 0:
            found.steps.append(seconds)
            found.calls.append(calls)
    return found


def _step(kind: int, node: Node, seconds: float, width: int) -> Call:
    """What a step of a plan did, whose maps and weights have elements of ``width`` bytes."""
    maps = [node.x, node.y] + ([] if node.add is None else [node.add])
    numbers = sum(int(np.prod(each.shape)) for each in maps) + node.weight.size
    if not node.weight.size:
        return Call(KINDS[kind], None, seconds, 0, width * numbers)
    outputs, _, height, columns = node.weight.shape
    words = f"{height}x{columns}, {node.x.shape[1]} to {outputs}"
    if node.window["stride"][0] > 1:
        words += f", stride {node.window['stride'][0]}"
    if node.add is not None:
        words += ", added"
    words += f", from {node.x.size[1]} px"
    flop = 2 * int(np.prod(node.y.shape)) * node.weight[0].size
    return Call(KINDS[kind], words, seconds, flop, width * numbers)


def profile_training(
    arch: str, precision: Precision, batch: int, size: int, rounds: int
) -> Profile:
    """By the kernels that MegEngine calls."""
    model = prepare(ARCHS[arch](), "cpu", precision)
    kernels = model.ops.kernels
    timed = TimedKernels(kernels, waiting(kernels))
    data = random_batch(batch, size)
    step = step_of("train", model, *data)
    model.ops.kernels = timed
    timed_step = step_of("train", model, *data)  # with an optimizer that is timed, too
    found = Profile()
    for number in range(-2, rounds):
        model.ops.kernels = kernels
        started = time.perf_counter()
        step()
        seconds = time.perf_counter() - started
        model.ops.kernels, timed.calls = timed, []
        timed_step()
        if number >= 0:
            found.steps.append(seconds)
            found.calls.append(timed.calls)
    return found


def bandwidth(kernels: Kernels) -> float:
    """GB/s of adding up two maps, the median of five times."""
    maps = [Tensor(np.ones(STREAM, np.float32)) for _ in range(2)]
    rates = []
    for _ in range(6):
        rates.append(3 * _bytes(maps[0]) / _timed(kernels, "Add", *maps, relu=0)[0] / 1e9)
    return statistics.median(rates[1:])


def section(title: str, found: Profile, peak: Optional[float]) -> str:
    """The tables of one profile, in Markdown."""
    step = statistics.median(found.steps)
    operations = found.by(lambda call: call.name)
    rows = [_row(name, group, step, peak) for name, group in operations.items()]
    rest = step - sum(group.seconds for group in operations.values())
    rows.append(["all else", "", *_time(rest, step), "", "", ""])
    convolutions = {
        key: group
        for key, group in found.by(lambda call: (call.layer, call.name)).items()
        if key[0] is not None
    }
    layers = [
        _row(f"{layer} | {name}", convolutions[layer, name], step, peak)
        for layer, name in convolutions
    ]
    head = ["calls", "ms", "of the step", "GFLOP/s", "of peak", "GB/s"]
    return "\n\n".join(
        [
            f"## {title}: {1e3 * step:.0f} ms",
            table(["operation", *head], rows),
            "Its convolutions, layer by layer:",
            table(["layer", "operation", *head], layers),
        ]
    )


def _row(name: str, group: Group, step: float, peak: Optional[float]) -> List[str]:
    head = [name, str(group.calls), *_time(group.seconds, step)]
    if not group.seconds:  # over before the waiting was
        return [*head, "", "", ""]
    rate = group.flop / group.seconds / 1e9
    share = f"{100 * rate / peak:.0f} %" if rate and peak else ""
    return [*head, f"{rate:.0f}" if rate else "", share, f"{group.size / group.seconds / 1e9:.1f}"]


def _time(seconds: float, step: float) -> Tuple[str, str]:
    return f"{1e3 * seconds:.1f}", f"{100 * seconds / step:.0f} %"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument(
        "--document", metavar="FILE", help="Markdown, here (default: standard output)"
    )
    return parser


def main(words: Optional[Sequence[str]] = None) -> int:
    """Measure, and write the page where it is asked for; return the exit code."""
    args = parser().parse_args(words)
    use_device("cpu")
    try:
        page = "\n\n".join(_parts(args)) + "\n"
    except UserError as error:
        sys.stderr.write(f"layers: {error}\n")
        return error.exit_code
    if args.document:
        Path(args.document).write_text(page, encoding="utf-8")
    else:
        sys.stdout.write(page)
    return 0


def _parts(args: argparse.Namespace) -> Iterable[str]:
    ops = prepare(ARCHS["resnet18"](), "cpu", "fp32").ops
    if not isinstance(ops, NativeOps):
        raise UserError("there are no native kernels here; the lines above say why")
    kernels = ops.kernels
    with Peak() as peak:
        peaks = peak.measure(kernels.threads, 0.5)
    limits = [
        ["CPU", machine.describe()["cpu"]],
        ["threads", str(kernels.threads)],
        ["date", datetime.now(timezone.utc).strftime("%Y-%m-%d")],
    ]
    for precision, instructions in peaks["instructions"].items():
        if peaks[precision]:
            limit = f"{peaks[precision]:.0f} GFLOP/s"
            limits.append([f"most in {precision}, by {instructions}", limit])
    mb = np.prod(STREAM) * 4 / 1e6
    limits.append([f"memory, adding up two maps of {mb:.0f} MB", f"{bandwidth(kernels):.0f} GB/s"])
    values = dict(vars(args), waiting=1e3 * waiting(kernels), limits=table(["", ""], limits))
    yield PAGE.format(**values).rstrip()
    for precision in args.precision:
        for arch in args.arch:
            for mode in ("inference", "train") if precision != "int8" else ("inference",):
                sys.stderr.write(f"{arch}, {mode}, {precision}\n")
                found = profile(arch, mode, precision, args.batch, args.size, args.rounds)
                title = f"{NAMES.get(arch, arch)}, {NAMES.get(mode, mode)}, {precision}"
                yield section(title, found, peaks.get(precision))


if __name__ == "__main__":
    sys.exit(main())
