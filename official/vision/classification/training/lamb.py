"""The optimizers that keep a mean of every gradient and of its square.

SGD is MegEngine's own. Of these two, MegEngine 1.13 has AdamW, and a LAMB whose constructor fails;
the operator behind that (``LAMBUpdate``) applies no trust ratio on the CPU, so that LAMB is
computed here from ordinary operations.
"""

import math
from typing import Any, Dict, Iterable, Tuple, Union

import megengine.functional as F
import megengine.optimizer as optim
import numpy as np
from megengine import Parameter, Tensor

Parameters = Union[Iterable[Parameter], Iterable[Dict[str, Any]]]


class AdamW(optim.AdamW):
    """MegEngine's AdamW, ``w -= lr (m / (sqrt(v) + eps) + weight_decay w)`` with unbiased m and v.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (arXiv:1711.05101),
    Algorithm 2; the decay follows ``lr`` as PyTorch's does. The step has shape (1,): checkpoints
    hold no tensor without an axis.
    """

    def _create_state(self, param_group: Dict[str, Any]) -> None:
        for parameter in param_group["params"]:
            _add_moments(self, parameter)


class LAMB(optim.Optimizer):
    """AdamW's update, scaled for every tensor to the length of its weights.

    Source: You et al., "Large Batch Optimization for Deep Learning" (arXiv:1904.00962), Algorithm
    2, in the form of NVIDIA's NvLamb and timm, which the published ResNet rows were trained with
    (Wightman et al., arXiv:2110.00476): ``u = m / (sqrt(v) + eps) + weight_decay w`` with unbiased
    m and v; ``w -= lr r u``. The trust ratio ``r = |w| / |u|`` (L2 norms) is used only for tensors
    with weight decay, and is 1 where either norm is 0. That form also clips the norm of all
    gradients together to 1 before it uses them; here ``clip_grad_norm`` does it.

    Args:
        params: parameters, or groups of them with values of their own for what follows.
        lr: learning rate.
        betas: decay per step of the means of the gradient and of its square.
        eps: added to the root.
        weight_decay: decay per step, before ``lr`` and the trust ratio.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float,
        betas: Tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    def _create_state(self, param_group: Dict[str, Any]) -> None:
        for parameter in param_group["params"]:
            _add_moments(self, parameter)

    def _updates(self, param_group: Dict[str, Any]) -> None:
        beta1, beta2 = param_group["betas"]
        decay = param_group["weight_decay"]
        for parameter in param_group["params"]:
            grad = parameter.grad
            if grad is None:
                continue
            state = self._state[parameter]
            mean, square = state["exp_avg"], state["exp_avg_sq"]
            # Made from a number of the host's, the step is read without waiting for the device.
            step = state["step"].numpy().item() + 1
            state["step"]._reset(Tensor(np.array([step], np.float32)))
            mean._reset(beta1 * mean + (1 - beta1) * grad)
            square._reset(beta2 * square + (1 - beta2) * (grad * grad))
            root = F.sqrt(square) / math.sqrt(1 - beta2**step)
            update = (mean / (1 - beta1**step)) / (root + param_group["eps"])
            if decay:
                update = update + decay * parameter
                update = update * _trust_ratio(parameter, update)
            parameter._reset(parameter - param_group["lr"] * update)


def l2_norm(x: Tensor) -> Tensor:
    """The root of the sum of squares, of shape ()."""
    flat = x.flatten()
    return F.sqrt((flat * flat).sum())


def _trust_ratio(parameter: Tensor, update: Tensor) -> Tensor:
    weight_norm, update_norm = l2_norm(parameter), l2_norm(update)
    defined = F.logical_and(weight_norm > 0, update_norm > 0)
    return F.where(defined, weight_norm / update_norm, F.ones_like(weight_norm))


def _add_moments(optimizer: optim.Optimizer, parameter: Parameter) -> None:
    optimizer._add_state(parameter, "exp_avg")
    optimizer._add_state(parameter, "exp_avg_sq")
    optimizer._add_state(parameter, "step", initializer=np.zeros(1, np.float32))
