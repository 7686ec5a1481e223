"""The optimizer of a recipe: which parameters it moves, at what rate, with what decay.

SGD is MegEngine's own. MegEngine 1.13 has AdamW too, and a LAMB whose constructor fails; the
operator behind that (``LAMBUpdate``) applies no trust ratio on the CPU. Both are computed here by
the model's operations, which for a CPU are one native kernel for each tensor.
"""

import math
from typing import Any, Callable, Dict, Iterable, List, Set, Tuple, Union

import megengine.functional as F
import megengine.module as M
import megengine.optimizer as optim
import numpy as np
from megengine import Parameter, Tensor
from megengine.module.batchnorm import _BatchNorm

from ..engine.schema import Optimizer
from ..errors import UsageError
from ..ops.plain import Adaptation, Layer, PlainOps, l2_norm

NORMS = (_BatchNorm, M.GroupNorm, M.InstanceNorm, M.LayerNorm, M.GeneralNorm)
CLASSIFIER = "fc"
UNSET = math.inf  # a step with a rate that nobody has set shows at once

Groups = List[Dict[str, Any]]
Parameters = Union[Iterable[Parameter], Iterable[Dict[str, Any]]]


def build_optimizer(
    model: M.Module, section: Optimizer, freeze: int = 0, head_lr: float = 1.0
) -> optim.Optimizer:
    """The optimizer that ``section`` describes, over what is not frozen.

    It has no learning rate until ``set_learning_rate`` gives it one, before every step.

    Args:
        freeze: how many stages stay fixed; see ``freeze_stages``.
        head_lr: the classifier's rate relative to that of all others.

    Raises:
        UsageError: when the network has fewer than ``freeze`` stages.
    """
    groups = _groups(model, section, freeze, head_lr)
    return OPTIMIZERS[section.type](groups, section, model)


def set_learning_rate(optimizer: optim.Optimizer, rate: float) -> None:
    """Give every group of parameters its rate for the next step, ``rate`` times its scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def _sgd(groups: Groups, section: Optimizer, model: M.Module) -> optim.Optimizer:
    """MegEngine's, or the same by the model's kernels; its decay is part of the gradient."""
    return model.ops.sgd(groups, UNSET, section.momentum, section.nesterov)


def _lamb(groups: Groups, section: Optimizer, model: M.Module) -> optim.Optimizer:
    return LAMB(groups, lr=UNSET, betas=section.betas, eps=section.eps, ops=model.ops)


def _adamw(groups: Groups, section: Optimizer, model: M.Module) -> optim.Optimizer:
    return AdamW(groups, lr=UNSET, betas=section.betas, eps=section.eps, ops=model.ops)


# By optimizer.type of a recipe.
OPTIMIZERS: Dict[str, Callable[[Groups, Optimizer, M.Module], optim.Optimizer]] = {
    "sgd": _sgd,
    "lamb": _lamb,
    "adamw": _adamw,
}


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


def freeze_stages(model: M.Module, count: int) -> None:
    """Put the first ``count`` stages into evaluation mode. Call it after every ``model.train()``.

    Their batch normalisation then uses its running statistics and leaves them alone, and drop path
    does nothing. Their parameters stay because ``trainable_parameters`` leaves them out, which
    nothing here can enforce.

    Args:
        count: 0 for none, 1 for the stem, 2 for the stem and layer1, and so on.

    Raises:
        UsageError: when there are fewer stages.
    """
    for module in _frozen(model, count):
        module.eval()


def freeze_norms(model: M.Module) -> None:
    """Let batch normalisations use the running statistics. Call it after every ``model.train()``.

    Those of the weights that fine-tuning starts from are of a million images; a small batch of
    few images has others.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def trainable_parameters(model: M.Module, freeze: int = 0) -> List[Parameter]:
    """What the gradient is taken for: all but the first ``freeze`` stages, in the model's order.

    Raises:
        UsageError: when there are fewer stages.
    """
    frozen: Set[int] = {
        id(parameter) for module in _frozen(model, freeze) for parameter in module.parameters()
    }
    return [parameter for parameter in model.parameters() if id(parameter) not in frozen]


def stages(model: M.Module) -> List[List[M.Module]]:
    """The modules of the stem, of layer1, and so on; the classifier is none of them.

    The BN that ends ResNet v2 in the paper's form belongs to its last stage.
    """
    found = [[layer for layer in (model.conv1, model.bn1) if layer is not None]]
    while hasattr(model, f"layer{len(found)}"):
        found.append([getattr(model, f"layer{len(found)}")])
    last = getattr(model, "norm", None)
    if isinstance(last, M.Module):
        found[-1].append(last)
    return found


class AdamW(optim.Optimizer):
    """``w -= lr (m / (sqrt(v) + eps) + weight_decay w)`` with unbiased m and v.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (arXiv:1711.05101),
    Algorithm 2; the decay follows ``lr`` as PyTorch's does. The step has shape (1,): checkpoints
    hold no tensor without an axis.

    Args:
        params: parameters, or groups of them with values of their own for what follows.
        lr: learning rate.
        betas: decay per step of the means of the gradient and of its square.
        eps: added to the root.
        weight_decay: decay per step, before ``lr`` and the trust ratio.
        ops: the operations that compute it.
    """

    trusts = False

    def __init__(
        self,
        params: Parameters,
        lr: float,
        betas: Tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        ops: PlainOps = Layer.ops,
    ):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        self._ops = ops

    def _create_state(self, param_group: Dict[str, Any]) -> None:
        for parameter in param_group["params"]:
            self._add_state(parameter, "exp_avg")
            self._add_state(parameter, "exp_avg_sq")
            self._add_state(parameter, "step", initializer=np.zeros(1, np.float32))

    def _updates(self, param_group: Dict[str, Any]) -> None:
        betas, decay = tuple(param_group["betas"]), param_group["weight_decay"]
        trust = self.trusts and decay > 0
        for parameter in param_group["params"]:
            if parameter.grad is None:
                continue
            state = self._state[parameter]
            mean, square = state["exp_avg"], state["exp_avg_sq"]
            # Made from a number of the host's, the step is read without waiting for the device.
            step = state["step"].numpy().item() + 1
            state["step"]._reset(Tensor(np.array([step], np.float32)))
            by = Adaptation(param_group["lr"], betas, param_group["eps"], decay, step, trust)
            moved = self._ops.adapt(parameter, parameter.grad, mean, square, by)
            for tensor, value in zip((parameter, mean, square), moved):
                tensor._reset(value)


class LAMB(AdamW):
    """AdamW's update, scaled for every tensor to the length of its weights.

    Source: You et al., "Large Batch Optimization for Deep Learning" (arXiv:1904.00962), Algorithm
    2, in the form of NVIDIA's NvLamb and timm, which the published ResNet rows were trained with
    (Wightman et al., arXiv:2110.00476): ``u = m / (sqrt(v) + eps) + weight_decay w`` with unbiased
    m and v; ``w -= lr r u``. The trust ratio ``r = |w| / |u|`` (L2 norms) is used only for tensors
    with weight decay, and is 1 where either norm is 0. That form also clips the norm of all
    gradients together to 1 before it uses them; here ``clip_grad_norm`` does it.
    """

    trusts = True


def _groups(model: M.Module, section: Optimizer, freeze: int, head_lr: float) -> Groups:
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
        {"params": params, "weight_decay": decay, "lr_scale": scale}
        for (decay, scale), params in groups.items()
    ]


def _frozen(model: M.Module, count: int) -> List[M.Module]:
    if count == 0:
        return []
    known = stages(model)
    if not 0 <= count <= len(known):
        raise UsageError(
            f"freeze: {count}, but this network has {len(known)} stages, the stem and layer1 to "
            f"layer{len(known) - 1}; expected 0 to {len(known)}"
        )
    return [module for stage in known[:count] for module in stage]
