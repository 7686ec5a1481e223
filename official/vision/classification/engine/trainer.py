"""Training a network: the data, the step, the epoch, the checkpoint."""

import time
from dataclasses import dataclass
from typing import Iterable, Optional

import megengine
import megengine.functional as F
import megengine.module as M
import megengine.optimizer as optim
import numpy as np
from megengine import Tensor
from megengine.autodiff import GradManager

from ..data.folder import ImageFolder, load_split
from ..data.loader import Batch, Loader, Transform
from ..data.normalize import Normalize
from ..data.sampler import BatchIndices, eval_batches, steps_per_epoch, train_batches
from ..data.transforms import EvalTransform, TrainTransform
from ..distributed.collectives import barrier, broadcast_model, rank, sum_over_ranks, world_size
from ..distributed.launch import Topology, launch
from ..errors import TrainingError, UsageError
from ..resnet.pretrained import Pretrained
from ..zoo.models import get_model
from .checkpoint import Progress, load_checkpoint, save_checkpoint
from .console import Console
from .curves import draw_curves
from .device import choose_device, prepare, use_device
from .evaluator import Result, evaluate
from .meters import StepMeters
from .recipe import Recipe
from .run_folder import RunFolder
from .schedule import learning_rate
from .stop import StopRequest

EVAL_BATCH = 100


@dataclass(frozen=True)
class TrainConfig:
    """What a run is, beside its recipe."""

    data: str
    arch: str
    recipe: Recipe
    save: str
    topology: Topology = Topology()
    device: str = "auto"
    workers: int = 2
    resume: Optional[str] = None  # "auto" or a checkpoint's path
    seed: int = 0
    pretrained: Pretrained = False
    num_classes: Optional[int] = None
    print_freq: int = 20


def train(config: TrainConfig) -> int:
    """Train as ``config`` says, on one device or several; return the exit code.

    Raises:
        UserError: for what the user can mend.
    """
    device = choose_device(config.device, config.topology.ngpus)
    return launch(_train_on_this_rank, config.topology, config, device)


def _train_on_this_rank(config: TrainConfig, device: str) -> int:
    use_device(device)
    return Trainer(config, device).run()


class Trainer:
    """One rank's part of a run."""

    def __init__(self, config: TrainConfig, device: str):
        self.config = config
        self.recipe = recipe = config.recipe
        self.train_set = load_split(config.data, "train")
        self.val_set = load_split(config.data, "val").relabel(self.train_set.classes)
        self.num_classes = _number_of_classes(config.num_classes, self.train_set)
        self.steps_per_epoch = steps_per_epoch(len(self.train_set), recipe.batch_size, world_size())
        self.last_step = recipe.epochs * self.steps_per_epoch
        self.total_lr = recipe.optimizer.total_lr(recipe.batch_size, world_size())

        self.folder = RunFolder(config.save, config.arch, config.resume)
        self.console = Console(rank() == 0, self.folder.path)
        self.normalize = Normalize(recipe.preprocess)

        megengine.random.seed(config.seed)
        self.model = self._build_model(device)
        several = world_size() > 1
        self.gradients = GradManager().attach(
            self.model.parameters(),
            callbacks=[megengine.distributed.make_allreduce_cb("mean")] if several else None,
        )
        self.optimizer = optim.SGD(
            self.model.parameters(),
            lr=self.total_lr,
            momentum=recipe.optimizer.momentum,
            nesterov=recipe.optimizer.nesterov,
            weight_decay=recipe.optimizer.weight_decay,
        )
        self.meters = StepMeters()
        self.step = 0  # steps done
        self.best_top1 = -1.0

    def run(self) -> int:
        """Train to the end, or to a signal; return the exit code."""
        if rank() == 0:
            self.folder.prepare(self.recipe)
        barrier()
        if self.folder.resume_from:
            self._resume()
        if self.step >= self.last_step:
            self.console.line(f"{self.folder.path}: all {self.recipe.epochs} epochs are done")
            return 0
        try:
            with StopRequest() as stop:
                self._start_bar()
                for batch in self._train_loader():
                    self._train_step(batch)
                    if (self.step - 1) % self.config.print_freq == 0:
                        self._report()
                    if self.step % self.steps_per_epoch == 0:
                        self._end_epoch()
                    if self._is_stopped(stop):
                        return self._stop(stop)
            return 0
        finally:
            self.console.stop_bar()

    def _train_step(self, batch: Batch) -> None:
        rate = learning_rate(
            self.step,
            self.steps_per_epoch,
            self.recipe.epochs,
            self.total_lr,
            self.recipe.schedule,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        images, labels = self.normalize(batch.images), Tensor(batch.labels)
        self.model.train()
        with self.gradients:
            logits = self.model(images)
            loss = F.nn.cross_entropy(logits, labels, label_smooth=self.recipe.loss.label_smoothing)
            self.gradients.backward(loss)
        self.optimizer.step().clear_grad()
        top1, top5 = F.topk_accuracy(logits, labels, (1, min(5, self.num_classes)))
        self.step += 1
        now = time.perf_counter()
        self.meters.add(F.stack([loss, top1, top5]).detach(), now - self.last_time)
        self.last_time = now
        self.console.advance(len(batch) * world_size())

    def _report(self) -> None:
        """The seed's line, and a row of metrics; the meters start anew.

        Raises:
            TrainingError: when a loss is not finite.
        """
        try:
            if not self.meters.fetch(self.step):
                return
        except TrainingError as error:
            raise TrainingError(
                f"{error}; lower the learning rate, or look at the data. "
                f"The last checkpoint is kept: {self.folder.checkpoint}"
            ) from None
        done = self.step - 1
        rate = self.optimizer.param_groups[0]["lr"]
        self.console.tick(
            f"Epoch {done // self.steps_per_epoch} Step {done}, LR {rate:.4f}, {self.meters}"
        )
        means = self.meters.means()
        self.console.advance(0, loss=f"{means['loss']:.3f}", top1=f"{means['top1']:.1f}")
        epoch = self.step / self.steps_per_epoch
        self.console.metrics(event="train", step=self.step, epoch=epoch, lr=rate, **means)
        self.meters.reset()

    def _end_epoch(self) -> None:
        """Test, write the checkpoint and the curves."""
        self._report()
        self.console.stop_bar()
        epoch = self.step // self.steps_per_epoch
        result = self._evaluate(f"Test {epoch}/{self.recipe.epochs}")
        self.console.line(f"Epoch {epoch} Test Acc@1 {result.top1:.3f}, Acc@5 {result.top5:.3f}")
        self.console.metrics(
            event="epoch",
            step=self.step,
            epoch=epoch,
            val_loss=result.loss,
            val_top1=result.top1,
            val_top5=result.top5,
        )
        is_best = result.top1 > self.best_top1
        self.best_top1 = max(self.best_top1, result.top1)
        self._save(best=is_best)
        if rank() == 0:
            draw_curves(self.folder.path)
        if self.step < self.last_step:
            self._start_bar()

    def _evaluate(self, title: str) -> Result:
        transform = EvalTransform(self.recipe.preprocess)
        batches = eval_batches(len(self.val_set), EVAL_BATCH, rank(), world_size())
        self.console.start_bar(title, len(self.val_set))
        result = evaluate(
            self.model,
            self._loader(self.val_set, transform, batches),
            self.normalize,
            len(self.val_set),
            report=lambda batch: self.console.advance(batch.total * world_size()),
        )
        self.console.stop_bar()
        return result

    def _train_loader(self) -> Loader:
        augment = self.recipe.augment
        transform = TrainTransform(
            self.recipe.train_size,
            augment.area if augment.crop == "resized" else None,
            augment.padding,
            augment.flip,
            augment.jitter,
            augment.interpolation,
        )
        batches = train_batches(
            len(self.train_set),
            self.recipe.batch_size,
            self.config.seed,
            self.step,
            self.last_step,
            rank(),
            world_size(),
        )
        return self._loader(self.train_set, transform, batches)

    def _loader(
        self, folder: ImageFolder, transform: Transform, batches: Iterable[BatchIndices]
    ) -> Loader:
        order = self.recipe.preprocess.order
        return Loader(folder, transform, order, batches, self.config.seed, self.config.workers)

    def _build_model(self, device: str) -> M.Module:
        model = get_model(
            self.config.arch,
            False if self.folder.resume_from else self.config.pretrained,
            num_classes=self.num_classes,
            zero_init_residual=self.recipe.zero_init_residual,
        )
        broadcast_model(model)
        return prepare(model, device)

    def _resume(self) -> None:
        path = self.folder.resume_from
        progress = load_checkpoint(path, self.model, self.optimizer)
        for name, value in vars(self._progress()).items():
            if name not in ("step", "best_top1") and getattr(progress, name) != value:
                raise UsageError(
                    f"--resume {path}: that run had another {name}; give the flags it was "
                    "started with, or start a new run from it with --pretrained"
                )
        self.step, self.best_top1 = progress.step, progress.best_top1
        self.console.rewind_metrics(self.step)
        self.console.line(f"resumed from {path} at step {self.step} of {self.last_step}")

    def _save(self, best: bool = False) -> None:
        if rank() == 0:
            for path in (self.folder.checkpoint, self.folder.best)[: 1 + best]:
                save_checkpoint(path, self.model, self.optimizer, self._progress())
        barrier()

    def _progress(self) -> Progress:
        return Progress(
            arch=self.config.arch,
            classes=self.train_set.classes,
            preprocess=self.recipe.preprocess,
            recipe=self.recipe.model_dump(mode="json"),
            seed=self.config.seed,
            step=self.step,
            total_batch=self.recipe.batch_size * world_size(),
            best_top1=self.best_top1,
        )

    def _is_stopped(self, stop: StopRequest) -> bool:
        """Whether a signal has come; ranks must agree, and ask each other now and then."""
        if world_size() == 1:
            return stop.came
        if self.step % self.config.print_freq:
            return False
        return bool(sum_over_ranks(np.array([stop.came], np.int32))[0])

    def _stop(self, stop: StopRequest) -> int:
        self._report()
        self.console.stop_bar()
        self._save()
        self.console.line(
            f"{stop.signal_name}: saved step {self.step} of {self.last_step} to "
            f"{self.folder.checkpoint}; continue with --resume auto"
        )
        return stop.exit_code

    def _start_bar(self) -> None:
        self.last_time = time.perf_counter()
        epoch, done = divmod(self.step, self.steps_per_epoch)
        batch = self.recipe.batch_size * world_size()
        self.console.start_bar(
            f"Epoch {epoch + 1}/{self.recipe.epochs}",
            self.steps_per_epoch * batch,
            done * batch,
        )


def _number_of_classes(wanted: Optional[int], folder: ImageFolder) -> int:
    found = len(folder.classes)
    if wanted is not None and wanted != found:
        raise UsageError(f"--num-classes {wanted}: {folder.root} has {found} class folders")
    return found
