"""Fine-tuning a part of a network: its first stages stay as they are."""

from typing import List, Set

import megengine.module as M
from megengine import Parameter

from ..errors import UsageError


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
    found = [[model.conv1, model.bn1]]
    while hasattr(model, f"layer{len(found)}"):
        found.append([getattr(model, f"layer{len(found)}")])
    last = getattr(model, "norm", None)
    if isinstance(last, M.Module):
        found[-1].append(last)
    return found


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
