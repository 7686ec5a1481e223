"""What a user of this repository waits for: inference, training, or images from the loader.

Run by tools/benchmark.py; see worker.py for what is said on the standard input and output. A step
is as many batches as take about ``--seconds``, and ends when the last result is on the host.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict

import cv2
import megengine
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import worker  # noqa: E402
from benchmarks.worker_megengine import onednn_version  # noqa: E402
from official.vision.classification.data.augment import TrainTransform  # noqa: E402
from official.vision.classification.data.folder import load_split  # noqa: E402
from official.vision.classification.data.loader import Batch, Loader  # noqa: E402
from official.vision.classification.data.normalize import Normalize  # noqa: E402
from official.vision.classification.data.sampler import train_batches  # noqa: E402
from official.vision.classification.engine.device import prepare, use_device  # noqa: E402
from official.vision.classification.engine.recipe import load_recipe, override  # noqa: E402
from official.vision.classification.engine.schema import Recipe  # noqa: E402
from official.vision.classification.errors import UserError  # noqa: E402
from official.vision.classification.training.step import TrainingStep  # noqa: E402
from official.vision.classification.zoo.models import get_model  # noqa: E402

RATE = 1e-4  # of learning: small, so that random labels cannot make the loss overflow
MOST_BATCHES = 1000  # in a step

Job = Callable[[int], float]  # does so many batches; its result, a number, is on the host


def parser() -> argparse.ArgumentParser:
    """The command line, which tools/benchmark.py fills in."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", required=True, choices=list(JOBS))
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--recipe", required=True, help="a name or a file")
    parser.add_argument("--data", help="for the loader")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--size", type=int, required=True, help="pixels")
    parser.add_argument("--device", required=True, choices=["cpu", "gpu"])
    parser.add_argument("--precision", required=True)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--warmup", type=int, required=True, help="batches before ready")
    parser.add_argument("--seconds", type=float, required=True, help="of a step, about")
    return parser


def main() -> int:
    """Serve one configuration; return the exit code."""
    args = parser().parse_args()
    server = worker.Server()
    use_device(args.device)
    facts: Dict[str, Any] = {}
    precision = "fp32" if args.precision == "int8" else args.precision  # of the recipe
    try:
        changes = {"batch_size": args.batch, "accumulate": 1, "precision": precision}
        recipe = override(load_recipe(args.recipe), {**changes, "arch": args.arch})
        job = JOBS[args.what](args, recipe, facts)
        facts["batches"] = batches = warm_up(job, args.warmup, args.seconds)
    except UserError as error:
        sys.exit(str(error))

    def step() -> float:
        result = job(batches)
        if args.device == "gpu":
            facts["gpu_peak_mb"] = megengine.get_max_reserved_memory("gpu0") / 1e6
        return result

    return server.serve(step, 0, facts)


def warm_up(job: Job, batches: int, seconds: float) -> int:
    """Run some batches one by one; how many more take about ``seconds``, by the last one."""
    duration = 0.0
    for _ in range(batches):
        started = time.perf_counter()
        job(1)
        duration = time.perf_counter() - started
    return max(1, min(MOST_BATCHES, round(seconds / duration)))


def inference(args: argparse.Namespace, recipe: Recipe, facts: Dict[str, Any]) -> Job:
    """From ``(N, 3, H, W)`` uint8 images to logits in evaluation mode."""
    images = random_batch(args.batch, args.size).images
    sample = Normalize(recipe.preprocess)(images).numpy() if args.precision == "int8" else None
    model = prepare(get_model(args.arch), args.device, args.precision, sample)
    model.eval()
    facts.update(computed_with(model, args.device))
    normalize = Normalize(recipe.preprocess, model.ops)

    def job(batches: int) -> float:
        for _ in range(batches):
            logits = model(normalize(images))
        return float((logits if isinstance(logits, np.ndarray) else logits.numpy())[0, 0])

    return job


def training(args: argparse.Namespace, recipe: Recipe, facts: Dict[str, Any]) -> Job:
    """Updates of the weights as train.py makes them: mixing, EMA and AMP are the recipe's."""
    model = prepare(get_model(args.arch, drop_path=recipe.drop_path), args.device, recipe.precision)
    facts.update(computed_with(model, args.device))
    train_step = TrainingStep(model, recipe, 0, args.device)
    batch = random_batch(args.batch, args.size)
    steps = itertools.count()

    def job(batches: int) -> float:
        for _ in range(batches):
            loss_and_hits = train_step(batch, next(steps), RATE)
        return float(loss_and_hits.numpy()[0])

    return job


def loading(args: argparse.Namespace, recipe: Recipe, facts: Dict[str, Any]) -> Job:
    """Training images as train.py reads and augments them, others every time."""
    folder = load_split(args.data, "train")
    transform = TrainTransform(args.size, recipe.augment, recipe.preprocess)
    facts["kernels"] = f"OpenCV, {args.workers} thread(s)"
    facts["versions"] = {"OpenCV": cv2.__version__}
    done = 0

    def job(batches: int) -> float:
        nonlocal done
        steps = (done, done + batches)
        done += batches
        indices = train_batches(*(len(folder), args.batch, 0, *steps, 0, 1, recipe.augment.repeats))
        order = recipe.preprocess.order
        return float(sum(map(len, Loader(folder, transform, order, indices, workers=args.workers))))

    return job


JOBS: Dict[str, Callable[[argparse.Namespace, Recipe, Dict[str, Any]], Job]] = {
    "inference": inference,
    "training": training,
    "loader": loading,
}


def random_batch(count: int, size: int) -> Batch:
    """Images of noise, whose labels every network has."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), np.uint8).transpose(0, 3, 1, 2)
    return Batch(images, rng.integers(0, 10, count).astype(np.int32), np.arange(count))


def computed_with(model: megengine.module.Module, device: str) -> Dict[str, Any]:
    """Kernels and versions."""
    versions = {"MegEngine": megengine.__version__}
    if device == "cpu":
        return {"kernels": model.ops.name, "versions": {**versions, "oneDNN": onednn_version()}}
    versions["CUDA"] = str(megengine.get_cuda_version())
    versions["cuDNN"] = str(megengine.get_cudnn_version())
    name = megengine.get_cuda_device_property(0).name
    return {"kernels": f"MegEngine's kernels, {name}", "versions": versions}


if __name__ == "__main__":
    sys.exit(main())
