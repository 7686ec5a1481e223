"""A network of this repository on the CPU, with its kernels or with MegEngine's own.

Run by compare.py; see worker.py for what is said on the standard input and output.
"""

import sys
from importlib import metadata
from pathlib import Path
from typing import Tuple

import megengine
import megengine.module as M
import numpy as np
from megengine import Tensor
from megengine.autodiff import GradManager

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import worker  # noqa: E402
from official.vision.classification.engine.device import prepare, use_device  # noqa: E402
from official.vision.classification.engine.schema import Loss, Optimizer  # noqa: E402
from official.vision.classification.ops.accelerate import CompiledOps  # noqa: E402
from official.vision.classification.ops.native import NativeOps  # noqa: E402
from official.vision.classification.resnet.complexity import Cost, complexity  # noqa: E402
from official.vision.classification.training.losses import loss_of  # noqa: E402
from official.vision.classification.training.optimizers import (  # noqa: E402
    build_optimizer,
    set_learning_rate,
    trainable_parameters,
)
from official.vision.classification.zoo.models import ARCHS  # noqa: E402


def main() -> int:
    """Serve one configuration; return the exit code."""
    parser = worker.network_parser(__doc__)
    parser.add_argument(
        "--stock", metavar="DEVICE", help="MegEngine's kernels on this device, nothing of ours"
    )
    args = parser.parse_args()
    server = worker.Server()
    if args.stock:
        megengine.set_default_device(args.stock)
        model = ARCHS[args.arch]()
    else:
        use_device("cpu")
        sample = images_of(args.batch, args.size) if args.precision == "int8" else None
        model = prepare(ARCHS[args.arch](), "cpu", args.precision, sample)
    images, labels = random_batch(args.batch, args.size)
    if args.stock:
        images = Tensor(images.numpy())
    step = step_of(args.mode, model, images, labels)
    cost = complexity(model, args.size)
    facts = {
        "parameters": cost.params,
        "macs": cost.macs,
        "first_macs": Cost(3, args.size, args.size).conv(first_convolution(model)).macs,
        "kernels": model.ops.name,
        "versions": {"MegEngine": megengine.__version__, "oneDNN": onednn_version()},
    }
    return server.serve(step, args.warmup, facts, args.steps)


def onednn_version() -> str:
    """Of the package that the native kernels are built on."""
    try:
        return metadata.version("onednn-cpu-gomp")
    except metadata.PackageNotFoundError:
        return "none"


def first_convolution(model: M.Module) -> M.Conv2d:
    """The one that sees the images, which want no gradient."""
    return next(each for each in model.modules() if isinstance(each, M.Conv2d))


def random_batch(batch: int, size: int) -> Tuple[Tensor, Tensor]:
    """``(N, 3, H, W)`` images, in memory as Normalize leaves them, and their labels."""
    rng = np.random.default_rng(0)
    images = Tensor(rng.standard_normal((batch, size, size, 3), np.float32)).transpose(0, 3, 1, 2)
    return images, Tensor(rng.integers(0, worker.CLASSES, batch).astype(np.int32))


def images_of(batch: int, size: int) -> np.ndarray:
    """The same as an array."""
    return random_batch(batch, size)[0].numpy()


def step_of(mode: str, model: M.Module, images: Tensor, labels: Tensor) -> worker.Step:
    """What is measured in ``mode``, "inference" or "train"."""
    return inference(model, images) if mode == "inference" else train(model, images, labels)


def inference(model: M.Module, images: Tensor) -> worker.Step:
    """A step is a forward pass of ``(N, 3, H, W)`` with the logits on the host."""
    model.eval()
    if isinstance(getattr(model, "ops", None), (NativeOps, CompiledOps)):
        array = images.numpy()  # as other runtimes take it
        return lambda: float(model(array)[0, 0])
    return lambda: float(model(images).numpy()[0, 0])


def train(model: M.Module, images: Tensor, labels: Tensor) -> worker.Step:
    """A step is what training/step.py does for one batch of the plainest recipe."""
    model.train()
    section = Optimizer(lr=worker.RATE, momentum=worker.MOMENTUM, weight_decay=worker.WEIGHT_DECAY)
    optimizer = build_optimizer(model, section)
    set_learning_rate(optimizer, worker.RATE)
    gradients = GradManager().attach(trainable_parameters(model))
    criterion = loss_of(Loss())

    def step() -> float:
        with gradients:
            loss = criterion(model(images), labels)
            gradients.backward(loss)
        optimizer.step()
        optimizer.clear_grad()
        megengine._full_sync()  # stock MegEngine may have queued the update only
        return loss.item()

    return step


if __name__ == "__main__":
    sys.exit(main())
