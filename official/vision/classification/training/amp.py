"""Half precision on a GPU: which operations compute in it, and how gradients survive it.

Source: Micikevicius et al., "Mixed Precision Training" (arXiv:1710.03740). Weights, statistics and
optimizer stay in float32; convolutions and matrix products compute in float16 (``autocast``). The
loss is multiplied by a scale before the backward pass, so that small gradients do not become zero
in float16, and the gradients are divided by it afterwards (``unscale``). With "dynamic" the scale
is halved when a gradient overflows, and that update is skipped (section 3.2); it is doubled after
2,000 updates without one. These numbers are those of ``torch.amp.GradScaler``. A scale that is
given stays, but such updates are skipped too.

    with scaler.autocast(), gradients:
        scaler.backward(gradients, loss(model(images), targets))
    if scaler.unscale(parameters):
        optimizer.step()
    optimizer.clear_grad()
"""

import contextlib
from typing import ContextManager, Dict, Iterable, Literal, Optional, Union

from megengine import Parameter, Tensor
from megengine.amp import GradScaler, autocast
from megengine.autodiff import GradManager

from ..engine.schema import Amp
from ..errors import TrainingError

LossScale = Union[None, float, Literal["dynamic"]]

FIRST_SCALE = 2.0**16
GROWTH_INTERVAL = 2000
MAX_SKIPPED = 30  # in a row; a dynamic scale has then come down to 2**-14


def build_loss_scaler(section: Amp, device: str) -> "LossScaler":
    """The scaler of a run on ``device``, "gpu" or "cpu"; see ``LossScaler.note``."""
    if not section.enabled:
        return LossScaler()
    if device == "cpu":
        note = "amp: half precision is for GPUs; this run on the CPU computes in float32"
        return LossScaler(note=note)
    return LossScaler(section.loss_scale)


class LossScaler:
    """Runs a step in float16 with a scaled loss; without ``loss_scale``, in float32 throughout.

    Args:
        loss_scale: a number, or "dynamic"; None for float32.
        note: one line for the user where this is not what was asked for.
    """

    def __init__(self, loss_scale: LossScale = None, note: Optional[str] = None):
        self.note = note
        self._fixed = loss_scale if isinstance(loss_scale, (int, float)) else None
        self._scaler: Optional[GradScaler] = None
        if loss_scale is not None:
            first = FIRST_SCALE if self._fixed is None else self._fixed
            self._scaler = GradScaler(first, growth_interval=GROWTH_INTERVAL)
        self._skipped = 0

    @property
    def scale(self) -> float:
        """What the loss is multiplied by."""
        return self._scaler.scale_factor if self._scaler else 1.0

    def autocast(self) -> ContextManager:
        """Forward and backward pass belong inside; a new one for every step."""
        return autocast() if self._scaler else contextlib.nullcontext()

    def backward(self, gradients: GradManager, loss: Tensor, accumulate: int = 1) -> None:
        """Add the gradient of ``loss / accumulate``, times ``scale``, to the parameters'.

        After ``accumulate`` calls, with batches of one size, that is the gradient of the mean loss
        over all their images. Only batch normalisation is not what it is in one large batch: its
        statistics are those of each small one (as over several devices), and its running
        statistics are updated with each.
        """
        if accumulate != 1:
            loss = loss / accumulate
        if self._scaler:
            self._scaler.backward(gradients, loss, unscale_grad=False)
        else:
            gradients.backward(loss)

    def unscale(self, parameters: Iterable[Parameter]) -> bool:
        """Divide the gradients by ``scale``; say whether the update is to be made.

        It is not when one of them is not finite; they are all None then.

        Raises:
            TrainingError: when that has happened 30 times in a row.
        """
        if self._scaler is None:
            return True
        scaled = [each for each in parameters if each.grad is not None]
        self._scaler.unscale(scaled)
        overflowed = any(each.grad is None for each in scaled)
        self._scaler.update(self._fixed)
        self._skipped = self._skipped + 1 if overflowed else 0
        if self._skipped == MAX_SKIPPED:
            raise TrainingError(
                f"amp: the gradients of {MAX_SKIPPED} steps in a row are not finite, at last with "
                f"a loss scale of {self.scale:g}; lower the learning rate, or set amp.enabled to "
                "false"
            )
        return not overflowed

    def state(self) -> Dict[str, float]:
        """What a resumed run needs to know, for a checkpoint; plain numbers."""
        return self._scaler.state_dict() if self._scaler else {}

    def load(self, state: Dict[str, float]) -> None:
        """Go on from what ``state`` returned; nothing of it matters in float32."""
        if self._scaler and state:
            self._scaler.load_state_dict(state)
