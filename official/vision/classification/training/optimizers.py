"""The optimizer of a recipe: which parameters it moves, at what rate, with what decay."""

from typing import Any, Dict, Iterable, List, Tuple

import megengine.functional as F
import megengine.module as M
import megengine.optimizer as optim
from megengine import Parameter, Tensor
from megengine.module.batchnorm import _BatchNorm

from ..engine.schema import Optimizer
from .freezing import trainable_parameters
from .lamb import LAMB, AdamW, l2_norm

NORMS = (_BatchNorm, M.GroupNorm, M.InstanceNorm, M.LayerNorm, M.GeneralNorm)
CLASSIFIER = "fc"


def build_optimizer(
    model: M.Module, section: Optimizer, lr: float, freeze: int = 0, head_lr: float = 1.0
) -> optim.Optimizer:
    """The optimizer that ``section`` describes, over what is not frozen.

    Every group of parameters has ``lr_scale`` beside its ``lr``: whoever changes the rate sets
    ``group["lr"] = rate * group["lr_scale"]``. SGD is MegEngine's, or the same by the kernels of
    ``model.ops``; its decay is part of the gradient, LAMB's and AdamW's are not.

    Args:
        lr: learning rate at first, of the whole run.
        freeze: how many stages stay fixed; see ``freeze_stages``.
        head_lr: the classifier's rate relative to that of all others.

    Raises:
        UsageError: when the network has fewer than ``freeze`` stages.
    """
    groups = _groups(model, section, lr, freeze, head_lr)
    if section.type == "sgd":
        return model.ops.sgd(groups, lr, section.momentum, section.nesterov)
    kind = {"lamb": LAMB, "adamw": AdamW}[section.type]
    return kind(groups, lr=lr, betas=tuple(section.betas), eps=section.eps)


def clip_grad_norm(parameters: Iterable[Parameter], max_norm: float) -> Tensor:
    """Scale all gradients so that their common L2 norm is at most ``max_norm``.

    Source: Pascanu et al., "On the difficulty of training recurrent neural networks"
    (arXiv:1211.5063), Algorithm 1. It is called after the gradients of several devices have been
    averaged, or accumulated; parameters without a gradient do not count. Where the norm is not
    finite every gradient becomes NaN, so that the run stops instead of going on without one.

    Returns:
        the norm before, of shape ().
    """
    clipped = [parameter for parameter in parameters if parameter.grad is not None]
    if not clipped:
        return Tensor(0.0)
    norm = l2_norm(F.stack([l2_norm(parameter.grad) for parameter in clipped]))
    # Exactly 1 below the limit. The second term is 0, or NaN for a norm that is not finite.
    scale = max_norm / F.maximum(norm, max_norm) + 0 * norm
    for parameter in clipped:
        parameter.grad._reset(parameter.grad * scale)
    return norm


def _groups(
    model: M.Module, section: Optimizer, lr: float, freeze: int, head_lr: float
) -> List[Dict[str, Any]]:
    """The trainable parameters by weight decay and rate, in the model's order."""
    trained = {id(parameter) for parameter in trainable_parameters(model, freeze)}
    of_norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, NORMS)
        for parameter in module.parameters()
    }
    groups: Dict[Tuple[float, float], List[Parameter]] = {}
    for name, parameter in model.named_parameters():
        if id(parameter) not in trained:
            continue
        is_bias = name.split(".")[-1] == "bias"
        is_norm = id(parameter) in of_norms
        decays = (section.decay_norm or not is_norm) and (section.decay_bias or not is_bias)
        scale = head_lr if name.split(".")[0] == CLASSIFIER else 1.0
        groups.setdefault((section.weight_decay if decays else 0.0, scale), []).append(parameter)
    return [
        {"params": params, "weight_decay": decay, "lr": lr * scale, "lr_scale": scale}
        for (decay, scale), params in groups.items()
    ]
