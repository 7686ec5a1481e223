"""Weights of any project into a file of ours, or one for plain ``megengine.load``."""

import hashlib
import io
import json
import logging
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

import megengine
import numpy as np

from ..data.calibrating import calibration_images, images_below
from ..engine.console import Console
from ..engine.files import check_target, safetensors_bytes, write_atomically
from ..errors import UsageError, WeightsError
from ..ops.accelerate import layer_ranges
from ..ops.quantize import LayerRanges
from ..readers.pickle_data import shown
from ..zoo.rows.row import licence_notice
from ..zoo.trained import Network, NetworkConfig, look_up, network_from
from ..zoo.weights import DESCRIPTION, Weights, load_weights
from .elsewhere import in_four_dimensions, recipe_for, renamed

logger = logging.getLogger(__name__)

SUFFIXES = (".safetensors", ".pkl")


@dataclass(frozen=True)
class ConvertConfig:
    """What is converted, and how it is told.

    Args:
        network: the source file as ``model``, and what is known of it.
        out: the file to write; its suffix says the format.
        verify: read it again and compare every tensor with the source.
        names: tell the name of every tensor, not only how many were renamed.
        half: store float16, which a network makes float32 again when it loads them.
        to: another project whose names and shapes the file is to have.
        calibration: a folder of images that int8 is to be calibrated by, from now on.
    """

    network: NetworkConfig
    out: str
    verify: bool = False
    names: bool = False
    half: bool = False
    to: Optional[str] = None
    calibration: Optional[str] = None


def convert(config: ConvertConfig) -> int:
    """Read, map, write and report; return the exit code.

    Raises:
        UserError: for what the user can mend; ``out`` is then as it was.
    """
    out = Path(config.out)
    if out.suffix not in SUFFIXES:
        raise UsageError(f"--out {out}: the name must end in {' or '.join(SUFFIXES)}")
    if config.network.preprocess is not None and out.suffix == ".pkl":
        logger.warning(
            "--preprocess: %s has tensors only and does not keep it; a .safetensors does", out
        )
    if config.half and out.suffix == ".pkl":
        raise UsageError("--half: for .safetensors; a network filled from a .pkl would be float16")
    if config.calibration and out.suffix == ".pkl":
        raise UsageError(f"--calibration {config.calibration}: for .safetensors; a .pkl has none")
    if config.to and out.suffix == ".pkl":
        raise UsageError(f"--to {config.to}: for .safetensors; a .pkl is for MegEngine")
    check_target("--out", out)
    console = Console()
    source = look_up(config.network)
    if licence_notice("", source.config.licence) and out.suffix == ".pkl":
        logger.warning("--out %s: keeps tensors only, and not that licence; tell it yourself", out)
    if source.weights and out.exists() and out.samefile(source.weights.path):
        raise UsageError(f"--out {out}: is the source itself; give another name")
    network = network_from(source)
    weights = source.weights_for(network.model)
    tensors = _collected(network, console)
    if config.half:
        tensors = _halved(weights.path, tensors)
    for line in _report(weights, network, tensors, config.names):
        console.line(line)
    if config.to:
        console.line(f"for: {recipe_for(config.to, network.arch, network.num_classes)}")
    ranges = _calibrated(network, config.calibration)
    data = _packed(network, tensors, out.suffix, config.to, ranges)
    write_atomically(out, data)
    digest = hashlib.sha256(data).hexdigest()
    console.line(f"written: {out}, {len(data) / 1e6:.1f} MB, sha256 {digest}")
    if config.verify:
        console.line(f"verified: {_verify(out, config, console)} tensors are equal")
    return 0


def _calibrated(network: Network, folder: Optional[str]) -> Optional[LayerRanges]:
    """What int8 needs to know, by the images of ``folder`` or as the source states it."""
    if folder is None:
        return network.config.int8_ranges
    images = calibration_images(images_below(folder), folder, network.preprocess)
    try:
        return layer_ranges(network.model, images)
    except ValueError as error:
        raise UsageError(f"--calibration {folder}: {error}") from None


def _collected(network: Network, console: Console) -> Dict[str, np.ndarray]:
    state = network.model.state_dict()
    console.start_bar("map", len(state), unit=" tensors")
    tensors = OrderedDict()
    for name, value in state.items():
        tensors[name] = np.ascontiguousarray(value)
        console.advance(1)
    console.stop_bar()
    return tensors


def _halved(path: Path, tensors: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """The nearest float16 of every value."""
    with np.errstate(over="ignore"):
        halves = {name: value.astype(np.float16) for name, value in tensors.items()}
    for name, value in halves.items():
        if not np.isfinite(value).all():
            raise WeightsError(f"{path}: {name} has values too large for float16; omit --half")
    return halves


def _packed(
    network: Network,
    tensors: Dict[str, np.ndarray],
    suffix: str,
    to: Optional[str],
    ranges: Optional[LayerRanges],
) -> bytes:
    if suffix == ".pkl":
        file = io.BytesIO()
        megengine.save(tensors, file)
        return file.getvalue()
    description: Dict[str, Any] = {
        "arch": network.arch,
        "classes": list(network.classes or ()),
        "preprocess": network.preprocess.to_dict(),
    }
    if network.config.held_out is not None:
        description["held_out"] = network.config.held_out
    if network.config.licence:
        description["licence"] = network.config.licence
    if ranges is not None:
        description["int8_ranges"] = ranges
    if to:
        description["names"] = to
    stored = renamed(to, network.arch, tensors) if to else in_four_dimensions(tensors)
    metadata = {"format": "pt", DESCRIPTION: json.dumps(description, sort_keys=True)}
    return safetensors_bytes(stored, metadata)


def _report(
    weights: Weights, network: Network, tensors: Dict[str, np.ndarray], names: bool
) -> List[str]:
    """What was found, and what became of it."""
    sources = weights.sources or {name: name for name in tensors}
    renamed = {ours: source for ours, source in sources.items() if ours != source}
    reshaped = [
        name for name, value in tensors.items() if value.shape != weights.tensors[name].shape
    ]
    params = sum(int(np.prod(parameter.shape)) for parameter in network.model.parameters())
    whose = "our own names" if weights.scheme == "ours" else f"names of {weights.scheme}"
    licence = network.config.licence
    lines = [
        f"source: {weights.path}, {weights.format}, {whose}, "
        f"{len(sources) + len(weights.dropped)} tensors",
        f"network: {network.arch}, {params:,} parameters, {network.num_classes} classes",
        f"mapped: {len(tensors)} tensors, {len(renamed)} renamed, {len(reshaped)} reshaped",
    ]
    if weights.dropped:
        first = shown(weights.dropped[0])
        lines.append(f"left out: {len(weights.dropped)} that are no weights ({first})")
    if licence:
        lines.append(f"licence: {licence}")
    if names:
        width = max(map(len, sources.values()))
        lines += [f"  {sources[name]:{width}s} -> {name} {tensors[name].shape}" for name in tensors]
    return lines


def _verify(out: Path, config: ConvertConfig, console: Console) -> int:
    """Read the source and the result anew, and compare them bit for bit."""
    network = network_from(look_up(config.network, say=False))
    source = look_up(config.network, say=False).weights_for(network.model)
    expected = network.model.state_dict()
    found = megengine.load(str(out)) if out.suffix == ".pkl" else load_weights(out).tensors
    console.start_bar("verify", len(expected), unit=" tensors")
    for name, value in expected.items():
        stored = value.astype(np.float16) if config.half else value
        if name not in found or not np.array_equal(found[name].ravel(), stored.ravel()):
            raise WeightsError(f"{out}: {name} is not what the source has; delete the file")
        if not np.array_equal(source.tensors[name].ravel(), value.ravel()):
            raise WeightsError(f"{source.path}: {name} did not reach the network unchanged")
        console.advance(1)
    console.stop_bar()
    if len(found) != len(expected):
        raise WeightsError(f"{out}: has other tensors besides; delete the file")
    return len(expected)
