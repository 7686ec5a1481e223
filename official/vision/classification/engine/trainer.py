"""Training a network: the data, the step, the epoch, the checkpoint."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

import megengine
import megengine.functional as F
import megengine.module as M
import megengine.optimizer as optim
import numpy as np
from megengine import Tensor
from megengine.autodiff import GradManager

from ..data.folder import ImageFolder, load_split
from ..data.loader import Batch, Loader
from ..data.normalize import Normalize
from ..data.sampler import eval_batches, steps_per_epoch, train_batches
from ..data.transforms import EvalTransform, TrainTransform
from ..distributed.collectives import barrier, broadcast_model, rank, sum_over_ranks, world_size
from ..distributed.launch import Topology, launch
from ..errors import TrainingError, UsageError, UserError
from ..resnet.pretrained import Pretrained
from ..zoo.models import get_model
from .checkpoint import Progress, load_checkpoint, save_checkpoint, write_atomically
from .console import Console, Meter
from .curves import draw_curves
from .device import choose_device, prepare, use_device
from .evaluator import Result, evaluate
from .recipe import Recipe, dump_recipe
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

        self.folder = Path(config.save) / config.arch
        self.checkpoint = self.folder / "checkpoint.safetensors"
        self.resume_from = _find_checkpoint(config.resume, self.checkpoint)
        self.console = Console(rank() == 0, self.folder)
        self.normalize = Normalize(recipe.preprocess)

        megengine.random.seed(config.seed)
        self.model = self._build_model(device)
        self.gradients = GradManager().attach(
            self.model.parameters(),
            callbacks=[megengine.distributed.make_allreduce_cb("mean")]
            if world_size() > 1
            else None,
        )
        self.optimizer = optim.SGD(
            self.model.parameters(),
            lr=self.total_lr,
            momentum=recipe.optimizer.momentum,
            nesterov=recipe.optimizer.nesterov,
            weight_decay=recipe.optimizer.weight_decay,
        )
        self.step = 0
        self.best_top1 = -1.0
        self.loss = Meter("Loss")
        self.top1 = Meter("Acc@1")
        self.top5 = Meter("Acc@5")
        self.time = Meter("Time")
        self.pending: List[Tensor] = []  # results of steps that nobody has waited for yet

    def run(self) -> int:
        """Train to the end, or to a signal; return the exit code."""
        self._open_folder()
        if self.resume_from:
            self._resume(self.resume_from)
        if self.step >= self.last_step:
            self.console.line(f"{self.folder}: all {self.recipe.epochs} epochs are done")
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
            loss = F.nn.cross_entropy(logits, labels, label_smooth=self.recipe.label_smoothing)
            self.gradients.backward(loss)
        self.optimizer.step().clear_grad()
        top1, top5 = F.topk_accuracy(logits, labels, (1, min(5, self.num_classes)))
        self.pending.append(F.stack([loss, top1, top5]).detach())
        self.step += 1
        now = time.perf_counter()
        self.time.update(now - self.last_time)
        self.last_time = now
        self.console.advance(len(batch) * world_size())

    def _drain(self) -> None:
        """Fetch the results of past steps from the device, and look at them."""
        first = self.step - len(self.pending)
        for offset, result in enumerate(self.pending):
            loss, top1, top5 = result.numpy().reshape(-1).tolist()
            if not np.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} at step {first + offset}; lower the learning rate, or "
                    f"look at the data. The last checkpoint is kept: {self.checkpoint}"
                )
            self.loss.update(loss)
            self.top1.update(100 * top1)
            self.top5.update(100 * top5)
        self.pending = []

    def _report(self) -> None:
        """The seed's line, and a row of metrics; the meters start anew."""
        self._drain()
        if not self.loss.count:
            return
        done = self.step - 1
        rate = self.optimizer.param_groups[0]["lr"]
        self.console.tick(
            f"Epoch {done // self.steps_per_epoch} Step {done}, LR {rate:.4f}, "
            f"{self.loss} {self.top1} {self.top5} {self.time}"
        )
        self.console.advance(0, loss=f"{self.loss.mean:.3f}", top1=f"{self.top1.mean:.1f}")
        self.console.metrics(
            event="train",
            step=self.step,
            epoch=self.step / self.steps_per_epoch,
            lr=rate,
            loss=self.loss.mean,
            top1=self.top1.mean,
            top5=self.top5.mean,
            seconds_per_step=self.time.mean,
        )
        for meter in (self.loss, self.top1, self.top5, self.time):
            meter.reset()

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
        self._save(self.checkpoint)
        if is_best:
            self._save(self.folder / "best.safetensors")
        if rank() == 0:
            draw_curves(self.folder)
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

    def _loader(self, folder: ImageFolder, transform: object, batches: object) -> Loader:
        order = self.recipe.preprocess.order
        return Loader(folder, transform, order, batches, self.config.seed, self.config.workers)

    def _build_model(self, device: str) -> M.Module:
        pretrained = False if self.resume_from else self.config.pretrained
        kwargs = {"num_classes": self.num_classes}
        if self.recipe.zero_init_residual:
            kwargs["zero_init_residual"] = True
        model = get_model(self.config.arch, pretrained, **kwargs)
        broadcast_model(model)
        return prepare(model, device)

    def _open_folder(self) -> None:
        """Make the run's folder; refuse one that holds another run's result."""
        if rank() == 0:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(
                    f"{self.folder}: cannot be made: {error.strerror}; choose another with --save"
                ) from None
            if self.checkpoint.exists() and not self.resume_from:
                raise UserError(
                    f"{self.checkpoint}: holds a run already; continue it with --resume auto, or "
                    "choose another folder with --save"
                )
            if not self.resume_from:
                for name in ("metrics.jsonl", "log.txt"):  # of a run that never got to a checkpoint
                    (self.folder / name).unlink(missing_ok=True)
            write_atomically(self.folder / "recipe.yaml", dump_recipe(self.recipe).encode())
        barrier()

    def _resume(self, path: Path) -> None:
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

    def _save(self, path: Path) -> None:
        if rank() == 0:
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
        self._save(self.checkpoint)
        self.console.line(
            f"{stop.signal_name}: saved step {self.step} of {self.last_step} to {self.checkpoint}; "
            "continue with --resume auto"
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


def _find_checkpoint(resume: Optional[str], default: Path) -> Optional[Path]:
    """The checkpoint to go on from, None to start anew."""
    if resume is None or (resume == "auto" and not default.exists()):
        return None
    return default if resume == "auto" else Path(resume)
