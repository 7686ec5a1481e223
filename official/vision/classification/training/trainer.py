"""Training a network: the data, the epochs, the checkpoints."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Optional

import megengine
import megengine.module as M
import numpy as np

from ..data.augment import TrainTransform
from ..data.folder import ImageDataset, describe_splits, load_split
from ..data.loader import Loader, Transform
from ..data.sampler import BatchIndices, eval_batches, steps_per_epoch, train_batches
from ..data.transforms import EvalTransform
from ..distributed.collectives import barrier, broadcast_model, rank, sum_over_ranks, world_size
from ..distributed.consistency import require_same_run, require_same_state, share_statistics
from ..distributed.heartbeat import with_heartbeats
from ..distributed.launch import Topology, launch
from ..engine.console import Console
from ..engine.device import choose_device, prepare, use_device
from ..engine.evaluation import Result, evaluate
from ..engine.files import refuse_inside
from ..engine.labels import number_of_classes
from ..engine.meters import NonFiniteLoss, StepMeters
from ..engine.recipe import Recipe
from ..errors import TrainingError
from ..zoo.models import get_model
from ..zoo.trained import NetworkConfig, look_up, start_from
from .checkpoint import Progress, collect_tensors, restore, save_checkpoint, save_weights
from .curves import draw_curves
from .probe import Features, features_of, fit_probe
from .resume import read_latest, require_same_recipe
from .run_folder import RunFolder
from .schedule import learning_rate
from .step import TrainingStep
from .stop import StopRequest

EVAL_BATCH = 100
DRAW_EVERY = 10.0  # seconds
ASK_EVERY = 4  # steps on CPUs, each of which may take seconds


@dataclass(frozen=True)
class TrainConfig:
    """What a run is, beside its recipe.

    Args:
        save_every: steps between two checkpoints within an epoch; there is one after each.
        keep: how many checkpoints stay.
    """

    data: str
    arch: str
    recipe: Recipe
    save: str
    topology: Topology = Topology()
    device: str = "auto"
    workers: int = 2
    resume: Optional[str] = None  # "auto" or a checkpoint's path
    seed: int = 0
    weights: Optional[NetworkConfig] = None  # that training starts from; None for random ones
    num_classes: Optional[int] = None
    print_freq: int = 20
    save_every: int = 1000
    keep: int = 2
    tensorboard: bool = False
    linear_probe: bool = False  # stop before the first step


def train(config: TrainConfig) -> int:
    """Train as ``config`` says, on one device or several; return the exit code.

    Raises:
        UserError: for what the user can mend.
    """
    refuse_inside("--save", Path(config.save), Path(config.data))
    device = choose_device(config.device, config.topology.ngpus)
    return launch(_train_on_this_rank, config.topology, config, device, device_type=device)


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
        self.num_classes = number_of_classes(config.num_classes, self.train_set)
        self.batch_size = recipe.batch_size * recipe.accumulate  # of one update on this rank
        self.steps_per_epoch = steps_per_epoch(len(self.train_set), self.batch_size, world_size())
        self.last_step = recipe.epochs * self.steps_per_epoch
        self.total_lr = recipe.total_lr(world_size())

        self.folder = RunFolder(config.save, config.arch, config.resume, config.keep)
        self.console = Console(rank() == 0, self.folder.path, config.tensorboard)
        megengine.random.seed(config.seed)
        self.device = device
        self.started_from = ""
        self.model = self._build_model(device)
        self.train_step = TrainingStep(self.model, recipe, config.seed, device)
        self.meters = StepMeters()
        self.step = 0  # steps done
        self.saved_step: Optional[int] = None  # what checkpoint.safetensors has
        self.best_top1 = -1.0
        self.last_time = 0.0  # when the last step ended
        self.next_drawing = 0.0  # when the curves may be drawn again

    def run(self) -> int:
        """Train to the end, or to a signal; return the exit code."""
        with contextlib.ExitStack() as until_the_end:
            if rank() == 0:  # for all: only this one writes
                until_the_end.enter_context(self.folder.locked())
                self.folder.prepare()
            barrier()
            return self._run()

    def _run(self) -> int:
        if self.folder.resume_from:
            self._resume()
        elif self.folder.metrics.exists():  # of a run that was ended before its first checkpoint
            self.console.rewind_metrics(0)
        require_same_run("the training set", [self.train_set.classes, len(self.train_set)])
        require_same_run("the step to go on from (--save must be on a shared disk)", [self.step])
        if rank() == 0:  # only now: a run that is refused leaves the recipe of the one before
            self.folder.write_recipe(self.recipe)
        for line in describe_splits(self.config.data, self.train_set, self.val_set):
            self.console.line(line)
        if self.started_from:
            self.console.line(self.started_from)
        self.console.line(f"kernels: {self.model.ops.name}")
        self.console.line(f"results go to {self.folder.path}")
        if self.train_step.scaler.note:
            self.console.line(self.train_step.scaler.note)
        if self.recipe.probe and self.config.weights and not self.folder.resume_from:
            self._start_with_probe()
        if self.config.linear_probe:
            return self._finish()
        if self.step >= self.last_step:
            self.console.line(f"all {self.recipe.epochs} epochs are done; --epochs can add more")
            return 0
        try:
            with StopRequest() as stop:
                return self._run_steps(stop)
        finally:
            self.console.stop_bar()

    def _run_steps(self, stop: StopRequest) -> int:
        self._start_bar()
        for batch in with_heartbeats(self._train_loader()):
            results = self.train_step(batch, self.step, self._rate(self.step))
            self.step += 1
            self._note(results, len(batch))
            if (self.step - 1) % self.config.print_freq == 0:
                self._report()
            if self.step % self.steps_per_epoch == 0:
                self._end_epoch()
            elif self.step % self.config.save_every == 0:
                self._save()
            if self._is_stopped(stop):
                return self._stop(stop)
        return self._finish()

    def _finish(self) -> int:
        self.console.line(
            f"done: best Acc@1 {self.best_top1:.3f}; results are in {self.folder.path}"
        )
        return 0

    def _start_with_probe(self) -> None:
        """Let the classifier be the best one for the features that the weights give; test it."""
        train, val = (self._features(split) for split in (self.train_set, self.val_set))
        probe = fit_probe(train, val, self.num_classes)
        self.model.fc.weight[:] = probe.weight
        self.model.fc.bias[:] = probe.bias
        broadcast_model(self.model)
        if self.train_step.average is not None:
            self.train_step.average.load(self.model.state_dict())
        self.console.line(
            f"linear probe: classifier fitted to the features of {len(self.train_set)} images, "
            f"penalty {probe.penalty:.1e}, validation loss {probe.loss:.3f}"
        )
        self._test(0)

    def _features(self, split: ImageDataset) -> Features:
        batches = eval_batches(len(split), EVAL_BATCH, rank(), world_size())
        loader = self._loader(split, EvalTransform(self.recipe.preprocess), batches)
        mirrored = self.recipe.augment.flip and split is self.train_set
        self.console.start_bar("Features", len(split))
        try:
            return features_of(
                *(self.model, with_heartbeats(loader), self.train_step.normalize),
                *(len(split), mirrored),
                progress=lambda count: self.console.advance(count * world_size()),
            )
        finally:
            self.console.stop_bar()

    def _rate(self, step: int) -> float:
        recipe = self.recipe
        return learning_rate(
            step, self.steps_per_epoch, recipe.epochs, self.total_lr, recipe.schedule
        )

    def _note(self, results: megengine.Tensor, images: int) -> None:
        now = time.perf_counter()
        self.meters.add(results, now - self.last_time)
        self.last_time = now
        self.console.advance(images * world_size())

    def _report(self) -> None:
        """The seed's line, and a row of metrics; the meters start anew.

        Raises:
            TrainingError: when a loss is not finite.
        """
        try:
            if not self.meters.fetch(self.step):
                return
        except NonFiniteLoss as error:
            raise TrainingError(self._explain(error)) from None
        done = self.step - 1
        rate = self._rate(done)
        epoch = done // self.steps_per_epoch + 1
        self.console.tick(f"Epoch {epoch} Step {done}, LR {_shown(rate)}, {self.meters}")
        means = self.meters.means()
        self.console.advance(0, loss=f"{means['loss']:.3f}", top1=f"{means['top1']:.1f}")
        part = self.step / self.steps_per_epoch
        self.console.metrics(event="train", step=self.step, epoch=part, lr=rate, **means)
        self.meters.reset()

    def _explain(self, error: NonFiniteLoss) -> str:
        """Where the loss broke, on which images, and what is left."""
        batch = next(self._batches(error.step))
        names = [self.train_set.paths[index] for index in batch.indices]
        kept = self.folder.checkpoints()
        if self.saved_step == error.step:  # the weights that gave this loss
            kept = kept[1:]
        return f"{error}, on {names[0]} and {len(names) - 1} more images; {_way_out(kept)}"

    def _end_epoch(self) -> None:
        """Test, write the checkpoint and the curves."""
        self._report()
        self.console.stop_bar()
        share_statistics(self.model, self.train_step.average)  # so that one network is tested
        self._test(self.step // self.steps_per_epoch)
        self._draw_curves(at_once=self.step == self.last_step)
        if self.step < self.last_step:
            self._start_bar()

    def _test(self, epoch: int) -> None:
        """Test the network after ``epoch``, and save it."""
        result = self._evaluate(f"Test {epoch}/{self.recipe.epochs}")
        self.console.line(f"Epoch {epoch} Test Acc@1 {result.top1:.3f}, Acc@5 {result.top5:.3f}")
        metrics = _metrics("val", result)
        if self.train_step.average is not None:
            with self.train_step.average.applied():
                result = self._evaluate(f"Test {epoch}/{self.recipe.epochs}, average")
            self.console.line(
                f"Epoch {epoch} Test of averaged weights Acc@1 {result.top1:.3f}, "
                f"Acc@5 {result.top5:.3f}"
            )
            metrics.update(_metrics("average", result))
        self.console.metrics(event="epoch", step=self.step, epoch=epoch, **metrics)
        is_best = result.top1 > self.best_top1
        self.best_top1 = max(self.best_top1, result.top1)
        self._save(best=is_best)

    def _draw_curves(self, at_once: bool) -> None:
        """Now and then: epochs of a small data set take hardly longer than the drawing."""
        now = time.perf_counter()
        if rank() == 0 and (at_once or now >= self.next_drawing):
            draw_curves(self.folder.path)
            self.next_drawing = now + DRAW_EVERY

    def _evaluate(self, title: str) -> Result:
        transform = EvalTransform(self.recipe.preprocess)
        batches = eval_batches(len(self.val_set), EVAL_BATCH, rank(), world_size())
        self.console.start_bar(title, len(self.val_set))
        result = evaluate(
            self.model,
            with_heartbeats(self._loader(self.val_set, transform, batches)),
            self.train_step.normalize,
            len(self.val_set),
            report=lambda batch: self.console.advance(batch.total * world_size()),
        )
        self.console.stop_bar()
        return result

    def _train_loader(self) -> Loader:
        recipe = self.recipe
        transform = TrainTransform(recipe.train_size, recipe.augment, recipe.preprocess)
        return self._loader(self.train_set, transform, self._batches(self.step))

    def _batches(self, first_step: int) -> Iterator[BatchIndices]:
        return train_batches(
            len(self.train_set),
            self.batch_size,
            self.config.seed,
            first_step,
            self.last_step,
            rank(),
            world_size(),
            self.recipe.augment.repeats,
        )

    def _loader(
        self, folder: ImageDataset, transform: Transform, batches: Iterable[BatchIndices]
    ) -> Loader:
        order = self.recipe.preprocess.order
        return Loader(folder, transform, order, batches, self.config.seed, self.config.workers)

    def _build_model(self, device: str) -> M.Module:
        recipe = self.recipe
        norm = M.SyncBatchNorm if recipe.sync_bn and world_size() > 1 else M.BatchNorm2d
        model = get_model(
            self.config.arch,
            num_classes=self.num_classes,
            zero_init_residual=recipe.zero_init_residual,
            drop_path=recipe.drop_path,
            norm=norm,
        )
        if self.config.weights and not self.folder.resume_from:
            source = look_up(self.config.weights, say=False)
            self.started_from = start_from(model, source, self.train_set.classes)
        broadcast_model(model)
        return prepare(model, device, recipe.precision)

    def _resume(self) -> None:
        """Go on from the latest checkpoint that is whole.

        Raises:
            UsageError: when it is of a run with another recipe, seed or data set.
            WeightsError: when none is whole.
        """
        path, progress, tensors = read_latest(self.folder.resume_from)
        longer = require_same_recipe(path, progress, self._progress(), self.steps_per_epoch)
        restore(path, tensors, self.model, self.train_step.optimizer, self.train_step.average)
        self.train_step.scaler.load(progress.loss_scaler)
        self.step, self.best_top1 = progress.step, progress.best_top1
        self.saved_step = self.step if self.folder.is_latest(path) else None
        self.console.rewind_metrics(self.step)
        if longer:
            self.console.line(longer)
        self.console.line(f"resumed from {path} at step {self.step} of {self.last_step}")

    def _save(self, best: bool = False) -> None:
        """Write a checkpoint, and the weights that did best if these are they."""
        self._report()  # before it, so that no weights are saved whose loss was not finite
        share_statistics(self.model, self.train_step.average)
        require_same_state(self.model, self.train_step.average)
        if rank() == 0:
            tensors = self._collect_tensors()
            if best:
                average = self.train_step.average
                weights = self.model.state_dict() if average is None else average.state()
                save_weights(self.folder.best, weights, self._progress())
            if self.saved_step is not None:
                self.folder.make_room(self.saved_step)
            save_checkpoint(self.folder.checkpoint, tensors, self._progress())
            self.folder.prune()
        self.saved_step = self.step
        barrier()

    def _collect_tensors(self) -> Dict[str, np.ndarray]:
        """What a checkpoint holds.

        Raises:
            TrainingError: when something in it is not finite.
        """
        step = self.train_step
        try:
            return collect_tensors(self.model, step.optimizer, step.average)
        except TrainingError as error:
            kept = self.folder.checkpoints()
            raise TrainingError(f"{error} after {self.step} steps; {_way_out(kept)}") from None

    def _progress(self) -> Progress:
        return Progress(
            arch=self.config.arch,
            classes=self.train_set.classes,
            preprocess=self.recipe.preprocess,
            recipe=self.recipe.model_dump(mode="json"),
            seed=self.config.seed,
            step=self.step,
            total_batch=self.batch_size * world_size(),
            best_top1=self.best_top1,
            loss_scaler=self.train_step.scaler.state(),
        )

    def _is_stopped(self, stop: StopRequest) -> bool:
        """Whether a signal has come; ranks must agree, and ask each other now and then."""
        if world_size() == 1:
            return stop.came
        if self.step % (ASK_EVERY if self.device == "cpu" else self.config.print_freq):
            return False  # asking makes the devices wait for each other
        return bool(sum_over_ranks(np.array([stop.came], np.int32))[0])

    def _stop(self, stop: StopRequest) -> int:
        self.console.stop_bar()
        if self.saved_step != self.step:
            self._save()
        if self.step > self.steps_per_epoch:
            self._draw_curves(at_once=True)
        self.console.line(
            f"{stop.signal_name}: saved step {self.step} of {self.last_step} to "
            f"{self.folder.checkpoint}; continue with --resume auto"
        )
        return stop.exit_code

    def _start_bar(self) -> None:
        self.last_time = time.perf_counter()
        epoch, done = divmod(self.step, self.steps_per_epoch)
        batch = self.batch_size * world_size()
        self.console.start_bar(
            f"Epoch {epoch + 1}/{self.recipe.epochs}",
            self.steps_per_epoch * batch,
            done * batch,
        )


def _way_out(kept: List[Path]) -> str:
    """What is left when numbers are not finite: the checkpoints ``kept``, latest first."""
    last = f"the last good checkpoint is {kept[0]}" if kept else "there is no checkpoint yet"
    return f"{last}; lower the learning rate, or look at the data"


def _shown(rate: float) -> str:
    """As the seed shows it; small ones, as fine-tuning has them, with their digits."""
    return f"{rate:.4f}" if rate == 0 or rate >= 0.001 else f"{rate:.2e}"


def _metrics(prefix: str, result: Result) -> Dict[str, float]:
    return {
        f"{prefix}_loss": result.loss,
        f"{prefix}_top1": result.top1,
        f"{prefix}_top5": result.top5,
    }
