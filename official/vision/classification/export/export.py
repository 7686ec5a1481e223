"""A network into a file for another runtime, checked before it is kept."""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import List, Tuple

import numpy as np

from ..data.dataset import ImageDataset
from ..engine.console import Console
from ..engine.evaluation import Result
from ..engine.files import check_target, write_atomically
from ..errors import UsageError
from ..zoo.trained import Network, NetworkConfig, open_network, untrained_network
from .check import BATCHES, Runner, check, mge_runner, onnx_runner, runtime
from .description import describe, input_shape
from .images import Images, accuracy, calibration_images, load_both
from .mge import mge_model

SUFFIXES = (".onnx", ".mge")


@dataclass(frozen=True)
class ExportConfig:
    """What is exported, and to which kind of file.

    Args:
        network: whose weights; they are drawn at random if ``random_weights``.
        out: the file to write; its suffix says the format.
        int8: whether it computes in int8, calibrated on ``calibration`` images of ``data``.
    """

    network: NetworkConfig
    out: str
    random_weights: bool = False
    int8: bool = False
    data: str = ""
    calibration: int = 256
    workers: int = 2


def export(config: ExportConfig) -> int:
    """Write the file, after it gave the network's own logits; return the exit code.

    Raises:
        UserError: for what the user can mend; ``out`` is then as it was.
    """
    out = Path(config.out)
    _check_flags(config, out)
    build = untrained_network if config.random_weights else open_network
    network = build(config.network)
    folders = load_both(config.data, network) if config.int8 else None
    console = Console()
    for line in _report(network):
        console.line(line)
    if out.suffix == ".mge":
        data = mge_model(network.model, input_shape(network))
        _check(out, network, mge_runner(data), console)
        description = out.with_name(out.name + ".json")
        write_atomically(description, (describe(network, "fp32") + "\n").encode())
        console.line(f"written: {description}, what images it takes and what its logits mean")
    else:
        from .onnx_ops import onnx_model  # needs onnx, which is optional

        data = onnx_model(network, "fp32")
        _check(out, network, onnx_runner(data), console)
        if folders is not None:
            data = _in_int8(config, network, folders, data, console)
    write_atomically(out, data)
    digest = hashlib.sha256(data).hexdigest()
    console.line(f"written: {out}, {len(data) / 1e6:.1f} MB, sha256 {digest}")
    return 0


def _check_flags(config: ExportConfig, out: Path) -> None:
    """See what can be seen before any work is done."""
    if out.suffix not in SUFFIXES:
        raise UsageError(f"--out {out}: the name must end in {' or '.join(SUFFIXES)}")
    if config.int8 and out.suffix != ".onnx":
        raise UsageError(f"--out {out}: --int8 needs a name that ends in .onnx")
    if config.random_weights and config.network.model is not None:
        raise UsageError("--random-weights and --model exclude each other; leave one out")
    check_target("--out", out)
    if out.suffix == ".onnx":
        for package in ("onnx", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise UsageError(
                    f"--out {out}: needs the package {package}; pip install -r "
                    "requirements-export.txt"
                )


def _report(network: Network) -> List[str]:
    params = sum(int(np.prod(parameter.shape)) for parameter in network.model.parameters())
    shape = ", ".join(map(str, ("N", *input_shape(network))))
    p = network.preprocess
    lines = [
        f"network: {network.arch}, {params:,} parameters, {network.num_classes} classes",
        f"input: ({shape}) float32, {p.order}, pixels minus {p.mean} over {p.std}",
    ]
    licence = network.config.licence
    return lines + ([f"licence of the weights: {licence}"] if licence else [])


def _check(out: Path, network: Network, run: Runner, console: Console) -> None:
    difference = check(f"{out}: not written", network, run)
    sizes = ", ".join(map(str, BATCHES))
    console.line(
        f"checked: {runtime(out.suffix)}, batches of {sizes}: logits differ from the network's by "
        f"{difference:.1e} of the largest"
    )


def _in_int8(
    config: ExportConfig,
    network: Network,
    folders: Tuple[ImageDataset, ImageDataset],
    data: bytes,
    console: Console,
) -> bytes:
    """Quantise by the first of ``folders``, and tell by the second what it costs."""
    from .onnx_ops import described  # as above
    from .quantize import quantize

    train, val = folders
    images = Images(network, config.workers)
    count = min(config.calibration, len(train))
    console.start_bar("calibrate", count)
    quantized = described(
        quantize(data, calibration_images(images, train, count, console.advance)),
        describe(network, "int8"),
    )
    console.stop_bar()
    console.line(f"int8: calibrated on {count} images of {train.root}")
    console.start_bar("Test", len(val))
    runners = (onnx_runner(data), onnx_runner(quantized))
    before, after = accuracy(images, val, runners, console.advance)
    console.stop_bar()
    console.line(f"fp32: {_counts(before)}")
    console.line(
        f"int8: {_counts(after)}; Acc@1 {after.top1 - before.top1:+.3f}, "
        f"Acc@5 {after.top5 - before.top5:+.3f}"
    )
    return quantized


def _counts(result: Result) -> str:
    return (
        f"Acc@1 {result.top1:.3f}, Acc@5 {result.top5:.3f} "
        f"({result.top1_correct} and {result.top5_correct} of {result.total})"
    )
