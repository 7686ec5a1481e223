"""What ranks compute in the tests; new processes find it by this module's name."""

import hashlib
from pathlib import Path

import megengine
import megengine.distributed as dist
import megengine.functional as F
import megengine.module as M
import numpy as np
from megengine import Parameter, Tensor
from megengine.autodiff import GradManager

from official.vision.classification.data.folder import load_split
from official.vision.classification.data.loader import Batch, Loader
from official.vision.classification.data.normalize import Normalize
from official.vision.classification.data.sampler import eval_batches
from official.vision.classification.data.transforms import EvalTransform
from official.vision.classification.distributed.collectives import (
    broadcast_model,
    rank,
    world_size,
)
from official.vision.classification.distributed.consistency import (
    require_same_run,
    require_same_state,
    share_statistics,
)
from official.vision.classification.engine.device import use_device
from official.vision.classification.engine.evaluation import evaluate
from official.vision.classification.errors import TrainingError
from official.vision.classification.resnet.cifar import resnet20_cifar
from official.vision.classification.training import trainer
from official.vision.classification.training.ema import ExponentialAverage
from official.vision.classification.training.step import TrainingStep

SHAPE = (6, 5)  # of what the collectives are tried on; 2 and 3 ranks divide 6


def values_of(number):
    """What rank ``number`` brings along."""
    return np.random.default_rng(number).normal(size=SHAPE).astype(np.float32)


def collect(folder):
    """Every function of F.distributed on this rank's values, and gradients through four."""
    use_device("cpu")
    own, found = Tensor(values_of(rank())), {}
    for name in ("all_reduce_sum", "all_reduce_max", "all_reduce_min", "all_gather"):
        found[name] = getattr(F.distributed, name)(own).numpy()
    for name in ("broadcast", "scatter", "reduce_scatter_sum", "all_to_all"):
        found[name] = getattr(F.distributed, name)(own).numpy()
    found["all_gather_axis_1"] = F.distributed.all_gather(own, axis=1).numpy()
    for name in ("reduce_sum", "gather"):
        result = getattr(F.distributed, name)(own)
        assert (result is None) == (rank() > 0)
        if result is not None:
            found[name] = result.numpy()
    if rank() > 0:
        ends = dist.new_group([1, 2])
        found["all_reduce_sum_of_1_and_2"] = F.distributed.all_reduce_sum(own, ends).numpy()
    for name in ("all_reduce_sum", "all_gather", "reduce_scatter_sum", "all_to_all"):
        found[f"grad_{name}"] = _gradient(getattr(F.distributed, name), own)
    np.savez(Path(folder) / f"{rank()}.npz", **found)
    return 0


def _gradient(collective, own):
    """Of the sum of y² over all ranks, where y is what the collective gives each."""
    weight = Parameter(own.numpy())
    with GradManager().attach([weight]) as gradients:
        gradients.backward((collective(weight) ** 2).sum())
    return weight.grad.numpy()


def disagree(folder):
    """Ranks that differ in one number, one after another: what each says of it."""
    use_device("cpu")
    megengine.random.seed(rank())
    model = resnet20_cifar(num_classes=3)
    said = [_said(require_same_state, model, None)]
    broadcast_model(model)
    average = ExponentialAverage(model, 0.9)
    said.append(_said(require_same_state, model, average))
    model.bn1.running_mean += rank()
    average.update(0)
    said.append(_said(require_same_state, model, average))
    share_statistics(model, average)
    said.append(_said(require_same_state, model, average))
    if rank() == 1:
        model.fc.bias += np.float32(1e-7)
    said.append(_said(require_same_state, model, average))
    said.append(_said(require_same_run, "the seed", [3, "x"]))
    said.append(_said(require_same_run, "the seed", [3, rank() // 2]))
    (Path(folder) / f"{rank()}.txt").write_text("\n".join(said))
    return 0


def _said(check, *args):
    try:
        check(*args)
    except TrainingError as error:
        return str(error)
    return "fine"


def count(folder, data, preprocess):
    """Evaluate this rank's share; what all ranks counted, and the images that it saw."""
    use_device("cpu")
    images = load_split(data, "val")
    megengine.random.seed(3)
    model = resnet20_cifar(num_classes=3)
    batches = eval_batches(len(images), 64, rank(), world_size())
    loader = Loader(images, EvalTransform(preprocess), preprocess.order, batches, workers=1)
    seen = []

    def watched():
        for batch in loader:
            seen.extend(batch.indices.tolist())
            yield batch

    result = evaluate(model, watched(), Normalize(preprocess), len(images))
    counts = [result.top1_correct, result.top5_correct, result.total]
    np.savez(Path(folder) / f"{world_size()}-{rank()}.npz", seen=seen, counts=counts)
    return 0


def update_once(folder, recipe, images, labels):
    """One update from this rank's share of the images; the network before and after it."""
    use_device("cpu")
    norm = M.SyncBatchNorm if world_size() > 1 else M.BatchNorm2d
    megengine.random.seed(5)
    model = resnet20_cifar(num_classes=3, norm=norm)
    broadcast_model(model)
    before = {name: value.copy() for name, value in model.state_dict().items()}
    lr = recipe.total_lr(world_size())
    train_step = TrainingStep(model, recipe, 0, "cpu")
    mine = slice(rank(), None, world_size())
    indices = np.arange(len(labels))[mine]
    train_step(Batch(images[mine], labels[mine], indices), 0, lr)
    change = {name: value - before[name] for name, value in model.state_dict().items()}
    np.savez(Path(folder) / f"{world_size()}-{rank()}.npz", lr=lr, **change)
    return 0


def train(config, stop_after=None):
    """A run of the trainer that lists the images it uses; stopped after an update, if wanted.

    For a single process, which is that of the tests, somebody else takes the changes back.
    """
    trainer.draw_curves = lambda folder: None
    if stop_after is not None:
        trainer.Trainer._is_stopped = lambda self, stop: self.step == stop_after
    trainer.TrainingStep = _Listing
    Path(config.save).mkdir(exist_ok=True)
    _Listing.path = Path(config.save) / f"seen-{world_size()}-{rank()}"
    return trainer._train_on_this_rank(config, "cpu")


class _Listing(TrainingStep):
    path = Path()

    def __call__(self, batch, step, rate):
        with self.path.open("a") as file:
            for index, image in zip(batch.indices, batch.images):
                file.write(f"{step} {index} {hashlib.sha256(image.tobytes()).hexdigest()}\n")
        return super().__call__(batch, step, rate)


def train_apart(config):
    """A run in which rank 1's weights are spoilt in the second update."""
    trainer.TrainingStep = _Spoilt
    return trainer._train_on_this_rank(config, "cpu")


def train_watched(config):
    """A run that notes which network every rank tests, and which it has at a checkpoint."""
    lines = []

    def watched(what, call):
        def noting(model, *args, **kwargs):
            arrays = sorted(model.state_dict().items())
            digest = hashlib.sha256(b"".join(value.tobytes() for _, value in arrays)).hexdigest()
            lines.append(f"{what} {digest}")
            return call(model, *args, **kwargs)

        return noting

    trainer.evaluate = watched("tested", trainer.evaluate)
    trainer.require_same_state = watched("saved", trainer.require_same_state)
    code = trainer._train_on_this_rank(config, "cpu")
    (Path(config.save) / f"{rank()}.txt").write_text("\n".join(lines))
    return code


class _Spoilt(TrainingStep):
    def __call__(self, batch, step, rate):
        if (step, rank()) == (1, 1):
            self.model.fc.bias += np.float32(1e-6)
        return super().__call__(batch, step, rate)
