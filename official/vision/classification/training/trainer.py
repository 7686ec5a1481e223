"""Training a network: the data, the epochs, the checkpoints."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional, Tuple

import megengine
import megengine.module as M
import numpy as np

from ..data.dataset import ImageDataset
from ..data.sampler import steps_per_epoch
from ..distributed.collectives import barrier, broadcast_model, rank, sum_over_ranks, world_size
from ..distributed.consistency import require_same_run, require_same_state, share_statistics
from ..distributed.heartbeat import with_heartbeats
from ..distributed.launch import Topology, launch
from ..engine.class_scores import Best, ClassCounts, ClassScores
from ..engine.console import Console
from ..engine.device import choose_device, prepare, use_device
from ..engine.evaluation import Result, evaluate
from ..engine.files import refuse_inside
from ..engine.labels import number_of_classes
from ..engine.meters import NonFiniteLoss
from ..engine.nodes import require_same_images
from ..engine.recipe import Recipe
from ..errors import TrainingError
from ..zoo.models import get_model
from ..zoo.trained import NetworkConfig, look_up, start_from
from ..zoo.weights import load_weights
from .checkpoint import Progress, collect_tensors, restore, save_checkpoint, save_weights
from .curves import draw_curves
from .display import Display
from .images import RunImages, counts_of, open_images
from .probe import probe_of
from .report.model_card import write_card
from .report.summary import Run, metrics_of, summary
from .resume import read_latest, require_same_recipe
from .run_folder import RunFolder, way_out
from .schedule import learning_rate
from .step import TrainingStep
from .stop import StopRequest

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
    trackers: Tuple[str, ...] = ()  # of engine/trackers.py
    linear_probe: bool = False  # stop before the first step
    val_share: Optional[float] = None  # of the training images, held out for validation
    skip_broken: bool = False  # go on without the images that cannot be read


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
        self.data, self.skipped = open_images(config)
        self.train_set, self.val_set = self.data.train, self.data.val
        self.images = RunImages(self.data, recipe, config.seed, config.workers)
        self.num_classes = number_of_classes(config.num_classes, self.train_set)
        self.batch_size = recipe.batch_size * recipe.accumulate  # of one update on this rank
        self.steps_per_epoch = steps_per_epoch(len(self.train_set), self.batch_size, world_size())
        self.last_step = recipe.epochs * self.steps_per_epoch
        self.total_lr = recipe.total_lr(world_size())

        self.folder = RunFolder(config.save, config.arch, config.resume, config.keep)
        self.console = Console(rank() == 0, self.folder.path, config.trackers, recipe.model_dump())
        megengine.random.seed(config.seed)
        self.device = device
        self.started_from = ""
        self.model = self._build_model(device)
        self.train_step = TrainingStep(
            *(self.model, recipe, config.seed, device, self.images.class_weights())
        )
        self.display = Display(
            *(self.console, self.steps_per_epoch, recipe.epochs, self.batch_size * world_size())
        )
        self.step = 0  # steps done
        self.saved_step: Optional[int] = None  # what checkpoint.safetensors has
        self.best = Best(recipe.best_metric, recipe.patience, recipe.probe * len(self.val_set))
        self.best_top1 = -1.0  # of the best epoch
        self.next_drawing = 0.0  # when the curves may be drawn again

    def run(self) -> int:
        """Train to the end, or to a signal; return the exit code."""
        with contextlib.closing(self.console), contextlib.ExitStack() as until_the_end:
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
        require_same_images(training=self.train_set, validation=self.val_set)
        require_same_run("the recipe", [self.recipe.model_dump_json()])
        require_same_run("the step to go on from (--save must be on a shared disk)", [self.step])
        if rank() == 0:  # only now: a run that is refused leaves the recipe of the one before
            self.folder.write_recipe(self.recipe)
        about = [f"kernels: {self.model.ops.name}", f"results go to {self.folder.path}"]
        lines = [*self.data.lines, self.started_from, *about, self.train_step.scaler.note]
        for line in filter(None, lines):
            self.console.line(line)
        if self.recipe.probe and self.config.weights and not self.folder.resume_from:
            self._start_with_probe()
        if self.config.linear_probe:
            return self._finish()
        if self.step >= self.last_step:
            self.console.line(f"all {self.recipe.epochs} epochs are done; --epochs can add more")
        if self.step >= self.last_step or self._has_lost_patience():
            return 0
        try:
            with StopRequest() as stop:
                return self._run_steps(stop)
        finally:
            self.console.stop_bar()

    def _run_steps(self, stop: StopRequest) -> int:
        self.display.begin(self.step)
        self.display.start_bar(self.step)
        for batch in with_heartbeats(self.images.training(self.step, self.last_step)):
            results = self.train_step(batch, self.step, self._rate(self.step))
            self.step += 1
            self.display.note(results, len(batch))
            if (self.step - 1) % self.config.print_freq == 0:
                self._report()
            if self.step % self.steps_per_epoch == 0:
                self._end_epoch()
            if self.step % self.config.save_every == 0 and self.saved_step != self.step:
                self._save()
            if self._is_stopped(stop):
                return self._stop(stop)
            if self._has_lost_patience():
                self._draw_curves(at_once=True)
                break
        return self._finish()

    def _has_lost_patience(self) -> bool:
        """Whether the last epochs, the one just ended included, were not better."""
        epoch = self.step // self.steps_per_epoch
        if not (self._is_to_test() and self.best.is_out_of_patience(epoch)):
            return False
        self.console.line(self.best.told_of_patience(epoch, self.recipe.epochs))
        return True

    def _is_to_test(self) -> bool:
        return self.recipe.is_to_test(self.step, self.steps_per_epoch)

    def _finish(self) -> int:
        """Test the best epoch on images that it was not chosen by, if there are; sum up."""
        self.console.stop_bar()
        if self.data.test is not None:
            self.model.load_state_dict(dict(load_weights(self.folder.best).tensors))
            result, scores = self._evaluate("Test of the best", self.data.test)
            metrics = metrics_of("test", result, scores, self.train_set.classes)
            metrics.update(counts_of(self.skipped, "test"))
            self.console.metrics(event="test", step=self.step, epoch=self.best.epoch, **metrics)
        if rank() == 0:
            run = Run(
                *(self.config, self.folder, self.data, self.best, self.best_top1),
                *(self.display.seconds, self.device, self.started_from),
            )
            for line in summary(run):
                self.console.line(line)
            write_card(run)
        barrier()
        return 0

    def _start_with_probe(self) -> None:
        """Let the classifier be the best one for the features that the weights give; test it."""
        probe = probe_of(self.model, self.train_step.normalize, self.images, self.console)
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

    def _rate(self, step: int) -> float:
        recipe = self.recipe
        return learning_rate(
            step, self.steps_per_epoch, recipe.epochs, self.total_lr, recipe.schedule
        )

    def _report(self) -> None:
        """Show and note down what the last steps gave.

        Raises:
            TrainingError: when a loss is not finite.
        """
        try:
            self.display.report(self.step, self._rate(self.step - 1))
        except NonFiniteLoss as error:
            raise TrainingError(self._explain(error)) from None

    def _explain(self, error: NonFiniteLoss) -> str:
        """Where the loss broke, on which images, and what is left."""
        batch = next(self.images.indices(error.step, error.step + 1))
        names = [self.train_set.paths[index] for index in batch.indices]
        kept = self.folder.checkpoints()
        if self.saved_step == error.step:  # the weights that gave this loss
            kept = kept[1:]
        return f"{error}, on {names[0]} and {len(names) - 1} more images; {way_out(kept)}"

    def _end_epoch(self) -> None:
        """Test, write the checkpoint and the curves, if it is an epoch for that."""
        self.console.stop_bar()
        if self._is_to_test():
            self._report()
            share_statistics(self.model, self.train_step.average)  # so that one network is tested
            self._test(self.step // self.steps_per_epoch)
            self._draw_curves(at_once=self.step == self.last_step)
        if self.step < self.last_step:
            self.display.start_bar(self.step)

    def _test(self, epoch: int) -> None:
        """Test the network after ``epoch``, and save it."""
        result, scores = self._evaluate(f"Test {epoch}/{self.recipe.epochs}")
        self.console.line(f"Epoch {epoch} Test Acc@1 {result.top1:.3f}, Acc@5 {result.top5:.3f}")
        metrics = metrics_of("val", result, scores, self.train_set.classes)
        if self.train_step.average is not None:
            with self.train_step.average.applied():
                result, scores = self._evaluate(f"Test {epoch}/{self.recipe.epochs}, average")
            self.console.line(
                f"Epoch {epoch} Test of averaged weights Acc@1 {result.top1:.3f}, "
                f"Acc@5 {result.top5:.3f}"
            )
            metrics.update(metrics_of("average", result, scores, self.train_set.classes))
        values = {**vars(result), "top1": result.top1, **scores.means()}
        metrics.update(counts_of(self.skipped, "train", "val"), best=self.best.take(epoch, values))
        self.console.metrics(event="epoch", step=self.step, epoch=epoch, **metrics)
        if metrics["best"]:
            self.best_top1 = result.top1
        self._save(best=metrics["best"])

    def _draw_curves(self, at_once: bool) -> None:
        """Now and then: epochs of a small data set take hardly longer than the drawing."""
        now = time.perf_counter()
        if rank() == 0 and (at_once or now >= self.next_drawing):
            draw_curves(self.folder.path)
            self.next_drawing = now + DRAW_EVERY

    def _evaluate(
        self, title: str, images: Optional[ImageDataset] = None
    ) -> Tuple[Result, ClassScores]:
        """Test the network on ``images``, or on those for validation."""
        images = images or self.val_set
        counts = ClassCounts(self.num_classes)
        self.console.start_bar(title, len(images))
        result = evaluate(
            self.model,
            with_heartbeats(self.images.testing(images)),
            self.train_step.normalize,
            len(images),
            report=lambda batch: self.console.advance(batch.total * world_size()),
            watchers=[counts.add],
        )
        self.console.stop_bar()
        return result, counts.scores()

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
        if progress.best_top1 >= 0:
            self.best.score, self.best.epoch = progress.best_score, progress.best_epoch
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
            raise TrainingError(f"{error} after {self.step} steps; {way_out(kept)}") from None

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
            best_score=-1.0 if self.best.score is None else self.best.score,
            best_epoch=self.best.epoch,
            held_out=self.data.held_out.to_dict() if self.data.held_out else None,
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
        saved = f"saved step {self.step} of {self.last_step} to {self.folder.checkpoint}"
        self.console.line(f"{stop.signal_name}: {saved}; continue with --resume auto")
        return stop.exit_code
