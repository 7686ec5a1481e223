"""A running average of the weights, which often judges better than the weights themselves."""

import contextlib
from typing import Dict, Iterator

import megengine.module as M
import numpy as np
from megengine import Tensor

from ..errors import WeightsError


class ExponentialAverage:
    """``average += (1 - d) (weights - average)`` after every update of the weights.

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992),
    in the exponential form of Szegedy et al. (arXiv:1512.00567, section 8). As in timm
    (ModelEmaV2) and torchvision's references it starts from the first weights and averages
    parameters and batch normalisation's running statistics alike. d is ``decay_at(step)``.

    It lies on the device and takes as much memory as the network's weights.

    Args:
        model: whose weights. Like an optimizer, the average keeps to the tensors that it has now.
        decay: of the average per update, when it has settled.
        warmup: forget faster at first. Without it the average of a run that is short beside
            ``1 / (1 - decay)`` updates is mostly made of the weights it started from.
    """

    def __init__(self, model: M.Module, decay: float, warmup: bool = True):
        self.decay = decay
        self.warmup = warmup
        self._tensors = dict(model.named_tensors())
        # From numpy: a copy, whatever becomes of the model's own memory.
        self._averages = {name: Tensor(each.numpy()) for name, each in self._tensors.items()}
        self._lerp = model.ops.lerp
        # MegEngine's state_dict has batch normalisation's tensors with one axis instead of four.
        self._shapes = {name: value.shape for name, value in model.state_dict().items()}

    def decay_at(self, step: int) -> float:
        """The decay when ``step`` updates have gone before.

        With ``warmup`` it is at most ``(1 + step) / (10 + step)``, the ramp of TensorFlow's
        ``tf.train.ExponentialMovingAverage(num_updates=step)``.
        """
        return min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay

    def update(self, step: int) -> None:
        """Take in the weights as they are now; ``step`` updates have gone before."""
        share = Tensor(np.array([1 - self.decay_at(step)], np.float32))
        for name, value in self._tensors.items():
            average = self._averages[name]
            average._reset(self._lerp(average, value.detach(), share))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Let the network have the averages inside of ``with``, and its own weights after it.

        What is done to its weights in between is lost.
        """
        own = {name: value.detach() for name, value in self._tensors.items()}
        try:
            self._give(self._averages)
            yield
        finally:
            self._give(own)

    def state(self) -> Dict[str, np.ndarray]:
        """The averages as ``model.state_dict()`` would have them, for a checkpoint."""
        return {
            name: self._averages[name].numpy().reshape(shape)
            for name, shape in self._shapes.items()
        }

    def load(self, state: Dict[str, np.ndarray]) -> None:
        """Go on from what ``state`` returned, bit for bit.

        Raises:
            WeightsError: when these are averages of another network; nothing has changed then.
        """
        found = {name: value.shape for name, value in state.items()}
        for name in sorted(self._shapes.keys() | found.keys()):
            if self._shapes.get(name) != found.get(name):
                raise WeightsError(
                    f"averaged weights: {name} has shape {found.get(name)}, expected "
                    f"{self._shapes.get(name)}; they are not those of this network"
                )
        for name, average in self._averages.items():
            average._reset(Tensor(state[name].reshape(average.shape)))

    def _give(self, values: Dict[str, Tensor]) -> None:
        for name, tensor in self._tensors.items():
            tensor._reset(values[name])
