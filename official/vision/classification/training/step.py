"""One update of a network's weights from one batch of images."""

from typing import Iterator, Optional, Tuple

import megengine
import megengine.functional as F
import megengine.module as M
import numpy as np
from megengine import Tensor
from megengine.autodiff import GradManager

from ..data.augmentation.mixing import apply_mix, draw_mix, mix_targets
from ..data.loader import Batch
from ..data.normalize import Normalize
from ..distributed.collectives import rank, world_size
from ..engine.schema import Recipe
from .amp import build_loss_scaler
from .ema import ExponentialAverage
from .losses import loss_of
from .optimizers import (
    build_optimizer,
    clip_grad_norm,
    freeze_norms,
    freeze_stages,
    set_learning_rate,
    trainable_parameters,
)

_DROP_PATH = 3  # what a seed is for, beside those of data/sampler.py


class TrainingStep:
    """One step of training: forward, backward, and the update, with what it has to remember.

    Args:
        recipe: what the loss is, how the weights follow its gradient, and so on.
        seed: of the run.
        class_weights: ``(C,)`` float32, how much an image of each class counts; None for alike.
    """

    def __init__(
        self,
        model: M.Module,
        recipe: Recipe,
        seed: int,
        device: str,
        class_weights: Optional[np.ndarray] = None,
    ):
        self.model = model
        self.recipe = recipe
        self.seed = seed
        mixes = bool(recipe.augment.mixup or recipe.augment.cutmix)
        self.normalize = Normalize(recipe.preprocess, model.ops, whole=mixes)
        self.criterion = loss_of(recipe.loss, class_weights)
        self.parameters = trainable_parameters(model, recipe.freeze)
        several = world_size() > 1
        self.gradients = GradManager().attach(
            self.parameters,
            callbacks=[megengine.distributed.make_allreduce_cb("mean")] if several else None,
        )
        self.optimizer = build_optimizer(model, recipe.optimizer, recipe.freeze, recipe.head_lr)
        self.scaler = build_loss_scaler(recipe.amp, device)
        self.average = None
        if recipe.ema is not None:
            self.average = ExponentialAverage(model, recipe.ema.decay, recipe.ema.warmup)
        self._into_training()

    def __call__(self, batch: Batch, step: int, rate: float) -> Tensor:
        """Update the weights from ``recipe.accumulate`` parts of ``batch``.

        Args:
            step: updates that have gone before.
            rate: learning rate of this one.

        Returns:
            the mean loss and the shares of top-1 and top-5 hits, of shape (3,), on the device.
        """
        set_learning_rate(self.optimizer, rate)
        if not self.model.training:  # it has been tested
            self._into_training()
        if self.recipe.drop_path:
            self._seed_drop_path(step)
        parts = self._parts(batch)
        results = [self._backward(part, step, virtual_rank) for virtual_rank, part in parts]
        if self.scaler.unscale(self.parameters):
            if self.recipe.optimizer.clip_norm:
                clip_grad_norm(self.parameters, self.recipe.optimizer.clip_norm)
            self.optimizer.step()
            if self.average is not None:
                self.average.update(step)
        self.optimizer.clear_grad()
        return results[0] if len(results) == 1 else F.stack(results).mean(axis=0)

    def _into_training(self) -> None:
        self.model.train()
        freeze_stages(self.model, self.recipe.freeze)
        if self.recipe.freeze_norm:
            freeze_norms(self.model)

    def _parts(self, batch: Batch) -> Iterator[Tuple[int, Batch]]:
        """The batch in the parts that as many more ranks would have had, and those ranks."""
        count = self.recipe.accumulate
        for index in range(count):
            images, labels, indices = (
                values[index::count] for values in (batch.images, batch.labels, batch.indices)
            )
            yield rank() + index * world_size(), Batch(images, labels, indices)

    def _backward(self, batch: Batch, step: int, virtual_rank: int) -> Tensor:
        images, labels = self.normalize(batch.images), Tensor(batch.labels)
        augment = self.recipe.augment
        count, _, height, width = images.shape
        draw = (augment.mixup, augment.cutmix)
        mix = draw_mix(self.seed, step, virtual_rank, count, height, width, *draw)
        images = apply_mix(images, mix)
        with self.scaler.autocast(), self.gradients:
            logits = self.model(images)
            targets = labels
            if mix.kind != "none":
                one_hot = F.one_hot(labels, logits.shape[1]).astype("float32")
                targets = mix_targets(one_hot, mix)
            loss = self.criterion(logits, targets)
            self.scaler.backward(self.gradients, loss, self.recipe.accumulate)
        top1, top5 = F.topk_accuracy(logits, labels, (1, min(5, logits.shape[1])))
        return F.stack([loss, top1, top5]).reshape(3).detach()

    def _seed_drop_path(self, step: int) -> None:
        """Make what drop path draws a function of (seed, step, rank): a resume repeats it."""
        words = np.random.SeedSequence((self.seed, _DROP_PATH, step, rank()))
        megengine.random.seed(int(words.generate_state(1)[0]))
