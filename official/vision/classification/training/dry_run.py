"""What a training run would be, without running it: its recipe, its size, its time, its images."""

import math
import resource
import sys
import time
from pathlib import Path
from typing import List, Sequence

import cv2
import megengine
import megengine.module as M
import numpy as np

from ..data.augment import TrainTransform
from ..data.augmentation.mixing import Mix, apply_mix, draw_mix
from ..data.dataset import ImageDataset
from ..data.loader import Batch, Loader
from ..data.sampler import steps_per_epoch, train_batches
from ..engine.console import Console
from ..engine.device import choose_device, prepare, use_device
from ..engine.files import refuse_inside
from ..engine.labels import number_of_classes
from ..engine.lettering import Lettering, drawable
from ..engine.recipe import dump_recipe
from ..errors import UserError
from ..resnet.complexity import complexity
from ..text import duration
from ..zoo.classes import display_names
from ..zoo.models import get_model
from ..zoo.trained import look_up, start_from
from .checkpoint import read_checkpoint
from .images import open_images
from .run_folder import RunFolder
from .step import TrainingStep
from .trainer import TrainConfig

TIMED_IMAGES = 2  # of a batch, per step that is timed: enough for an estimate, soon over
SHOWN_IMAGES = 32
_COLUMNS = 8
_BORDER = 4  # pixels between two images
_LEAST = 96  # edge of an image on the sheet: room for a name below it
_LINE, _SIZE = 20, 13  # height of a line of words and of its letters
_INK = (40, 40, 40)


def dry_run(config: TrainConfig) -> int:
    """Tell what ``train`` would do on this machine's first device; return the exit code.

    It writes one picture, ``<save>/<arch>-augmented.png``.

    Raises:
        UserError: for recipes, flags and data that would stop the run itself.
    """
    refuse_inside("--save", Path(config.save), Path(config.data))
    device = choose_device(config.device, 1)
    use_device(device)
    console = Console()
    console.line(dump_recipe(config.recipe).rstrip())
    ranks = config.topology.processes
    data, _ = open_images(config)
    train_set, val_set = data.train, data.val
    classes = number_of_classes(config.num_classes, train_set)
    batch = _first_batch(config, train_set, ranks)
    model = get_model(config.arch, num_classes=classes, drop_path=config.recipe.drop_path)
    folder = RunFolder(config.save, config.arch, config.resume, config.keep)
    if folder.resume_from:
        progress, _ = read_checkpoint(folder.resume_from[0])
        console.line(f"goes on from {folder.resume_from[0]}, at step {progress.step}")
    elif config.weights:
        source = look_up(config.weights, say=False)
        console.line(start_from(model, source, train_set.classes))
    console.line(
        f"data: {len(train_set)} training and {len(val_set)} validation images, {classes} classes"
    )
    for line in data.lines if data.held_out else data.lines[1:]:
        console.line(line)
    for line in _sizes(config, model, len(train_set), ranks):
        console.line(line)
    for line in _costs(config, model, len(train_set), ranks, batch, device):
        console.line(line)
    names = display_names(tuple(train_set.classes), len(train_set.classes))
    console.line(f"augmented batch: {_draw(config, batch, names)}")
    return 0


def _first_batch(config: TrainConfig, folder: ImageDataset, ranks: int) -> Batch:
    """The images of the first step, as the network would see them."""
    recipe = config.recipe
    size = recipe.batch_size * recipe.accumulate
    labels = folder.labels if recipe.sampling == "balanced" else None
    batches = train_batches(
        *(len(folder), size, config.seed, 0, 1, 0, ranks, recipe.augment.repeats, labels)
    )
    transform = TrainTransform(recipe.train_size, recipe.augment, recipe.preprocess)
    order = recipe.preprocess.order
    (batch,) = Loader(folder, transform, order, batches, config.seed, config.workers)
    return batch


def _sizes(config: TrainConfig, model: M.Module, images: int, ranks: int) -> List[str]:
    recipe = config.recipe
    cost = complexity(model, recipe.train_size)
    update = recipe.batch_size * recipe.accumulate
    steps = steps_per_epoch(images, update, ranks)
    return [
        f"network: {config.arch}, {cost.params / 1e6:.2f} M parameters, {cost.macs / 1e9:.2f} G "
        f"multiply-adds per image at {recipe.train_size} px",
        f"steps: {steps} per epoch, {steps * recipe.epochs} in all, {update * ranks} images each "
        f"on {ranks} device{'s'[: ranks > 1]}",
        f"learning rate: {recipe.total_lr(ranks):g} at its highest",
    ]


def _costs(
    config: TrainConfig, model: M.Module, images: int, ranks: int, batch: Batch, device: str
) -> List[str]:
    """Time and memory, scaled up from a step on a few images."""
    recipe = config.recipe
    few = Batch(*(values[:TIMED_IMAGES] for values in vars(batch).values()))
    small = recipe.model_copy(update={"accumulate": 1})
    rate = recipe.total_lr(ranks)
    train_step = TrainingStep(prepare(model, device, recipe.precision), small, config.seed, device)
    before = _memory(device)
    seconds = math.inf
    for step in range(2):  # the first one also prepares kernels and memory
        started = time.perf_counter()
        train_step(few, step, rate).numpy()
        seconds = min(seconds, time.perf_counter() - started)
    per_image = seconds / len(few)
    used = (_memory(device) - before) / len(few) * recipe.batch_size + before
    epoch = per_image * images / ranks
    return [
        f"estimate: {1 / per_image:.1f} images/s on a {device.upper()}, so {duration(epoch)} per "
        f"epoch and {duration(epoch * recipe.epochs)} in all, without the loader",
        f"estimate: {used / 1e9:.1f} GB of memory at a batch of {recipe.batch_size}",
    ]


def _memory(device: str) -> float:
    """The most this process has used so far, in bytes."""
    if device == "gpu":
        return float(megengine.get_max_reserved_memory("gpu0"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)


def _draw(config: TrainConfig, batch: Batch, classes: Sequence[str]) -> Path:
    """Save a sheet of images as the network gets them, mixed ones included."""
    augment, shown = config.recipe.augment, batch.images[:SHOWN_IMAGES]
    count, _, height, width = shown.shape
    mix = draw_mix(config.seed, 0, 0, count, height, width, augment.mixup, augment.cutmix)
    images = apply_mix(megengine.Tensor(shown.astype(np.float32)), mix).numpy().round()
    images = images.astype(np.uint8).transpose(0, 2, 3, 1)
    if config.recipe.preprocess.order == "RGB":
        images = images[..., ::-1]
    names = names_of(batch.labels[:SHOWN_IMAGES].tolist(), classes, mix)
    sheet = sheet_of(images, names)
    path = Path(config.save) / f"{config.arch}-augmented.png"
    _, data = cv2.imencode(".png", sheet)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}; choose --save") from None
    return path


def sheet_of(images: np.ndarray, names: Sequence[Sequence[str]]) -> np.ndarray:
    """The images in rows of eight, small ones enlarged by whole pixels.

    Args:
        images: ``(N, H, W, 3)`` uint8, BGR.
        names: the lines below each; as many for each.
    """
    count, height, width = images.shape[:3]
    factor = -(-_LEAST // width)
    height, width = height * factor, width * factor
    columns = min(_COLUMNS, count)
    below = _LINE * len(names[0])
    cell = (height + below + _BORDER, width + _BORDER)
    sheet = np.full((-(-count // columns) * cell[0], columns * cell[1], 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = cell[0] * (index // columns), cell[1] * (index % columns)
        large = image.repeat(factor, 0).repeat(factor, 1)
        sheet[top : top + height, left : left + width] = large
    words = Lettering(sheet)
    for index, lines in enumerate(names):
        top, left = cell[0] * (index // columns), cell[1] * (index % columns)
        for line, text in enumerate(lines):
            middle = top + height + _LINE * line + _LINE // 2
            words.write(text, left + 2, middle, _SIZE, _INK, width - 4)
    return words.picture()


def names_of(labels: Sequence[int], classes: Sequence[str], mix: Mix) -> List[List[str]]:
    """The name of each image's class; of mixed images both, with their shares."""
    own = [drawable(classes[label], label) for label in labels]
    if mix.lam == 1:
        return [[name] for name in own]
    share, rest = f"{100 * mix.lam:.0f} %", f"{100 * (1 - mix.lam):.0f} %"
    return [
        [f"{share} {name}", f"{rest} {own[other]}"] for name, other in zip(own, mix.permutation)
    ]
