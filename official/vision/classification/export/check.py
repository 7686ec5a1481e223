"""An exported network, run by the runtime it is meant for, beside the network itself."""

import io
from typing import Callable, Tuple

import megengine
import numpy as np

from ..data.normalize import Normalize
from ..engine.device import cpu_threads
from ..engine.scoring import finite
from ..errors import UserError
from ..ops.folding import computing_by
from ..ops.plain import PlainOps
from ..zoo.trained import Network
from .description import INPUT, OUTPUT, input_shape

BATCHES = (1, 2, 3)
TOLERANCE = 1e-4  # of the largest logit

Runner = Callable[[np.ndarray], np.ndarray]  # (N, 3, H, W) float32 images -> (N, C) logits


def onnx_runner(data: bytes) -> Runner:
    """An ONNX file's content, run by onnxruntime on the CPU."""
    import onnxruntime  # optional: the project works without it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu_threads()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> np.ndarray:
        return session.run([OUTPUT], {INPUT: np.ascontiguousarray(images)})[0]

    return run


def mge_runner(data: bytes) -> Runner:
    """A .mge file's content, run by MegEngine Lite on the CPU."""
    import megenginelite  # loads a shared library

    network = megenginelite.LiteNetwork()
    network.enable_cpu_inplace_mode()  # without a thread that polls
    network.load(io.BufferedReader(io.BytesIO(data)))

    def run(images: np.ndarray) -> np.ndarray:
        network.get_io_tensor(INPUT).set_data_by_copy(np.ascontiguousarray(images))
        network.forward()
        network.wait()
        return np.array(network.get_io_tensor(OUTPUT).to_numpy())

    return run


def check(subject: str, network: Network, run: Runner) -> float:
    """The largest difference between the logits of ``run`` and ``network``, over the largest logit.

    Images are noise of different brightness, normalised as the network needs it; ``run`` gets them
    in batches of ``BATCHES``, the network all at once, by MegEngine's own kernels.

    Args:
        subject: what a message begins with.

    Raises:
        UserError: when the difference is above ``TOLERANCE``.
        TrainingError: when the network's logits are not finite.
    """
    pixels = _noise((sum(BATCHES), *input_shape(network)))
    images = Normalize(network.preprocess)(pixels)
    with computing_by(network.model, PlainOps()):
        expected = finite(network.model(images).numpy(), f"{subject}: the network's")
    parts = np.split(images.numpy(), np.cumsum(BATCHES)[:-1])
    found = np.concatenate([run(part) for part in parts])
    if found.shape != expected.shape:
        raise UserError(f"{subject}: it has {found.shape} logits, the network {expected.shape}")
    largest = max(np.abs(expected).max(), np.finfo(np.float32).tiny)
    difference = float(np.abs(found - expected).max() / largest)
    if not difference <= TOLERANCE:  # NaN is refused, too
        raise UserError(
            f"{subject}: its logits differ from the network's by {difference:.1e} of the largest, "
            f"more than {TOLERANCE:.0e}"
        )
    return difference


def runtime(suffix: str) -> str:
    """Which runtime checks a file of this kind, and its version."""
    if suffix == ".mge":
        return f"MegEngine Lite {megengine.__version__}"
    import onnxruntime  # as above

    return f"onnxruntime {onnxruntime.__version__}"


def _noise(shape: Tuple[int, ...]) -> np.ndarray:
    random = np.random.default_rng(0)
    brightness = random.integers(1, 256, (*shape[:2], 1, 1))
    return random.integers(0, brightness, shape).astype(np.uint8)
