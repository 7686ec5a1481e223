"""What the oracles that run in PyTorch share."""

from typing import Dict, Sequence, Tuple

import fixtures
import numpy as np
import seeded
import torch
from torch import nn

# Height, width and number of images. The second is odd everywhere: 81x97, 41x49, 21x25, 11x13, 6x7.
IMAGENET_SIZES = ((224, 224, 1), (161, 193, 2))
DEEP_SIZES = ((224, 224, 1), (161, 193, 1))  # the tests' time is in the largest networks
SMALL_SIZES = ((128, 128, 1), (97, 113, 1))  # 97x113, 49x57, 25x29, 13x15, 7x8, 4x4
CIFAR_SIZES = ((32, 32, 2), (33, 41, 2))


def declare_torchvision_ops() -> None:
    """Let torchvision be imported where its compiled operators cannot be loaded.

    Its wheel on PyPI needs CUDA's libraries even for the CPU. Importing it without them fails at
    two operators for object detection, which no network here uses.
    """
    torchvision = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        torchvision.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    declare_torchvision_ops.library = torchvision  # the declaration ends with this object


def give_seeded_weights(model: nn.Module, prefix: str = "") -> Dict[str, Tuple[int, ...]]:
    """Fill every tensor of the state dict, and return their shapes.

    Args:
        prefix: what a saved file has before each name.
    """
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    weights = seeded.tensors({prefix + name: shape for name, shape in shapes.items()})
    model.load_state_dict({name: torch.from_numpy(weights[prefix + name]) for name in shapes})
    return {prefix + name: shape for name, shape in shapes.items()}


def record(
    name: str,
    arch: str,
    source: str,
    model: nn.Module,
    sizes: Sequence[Tuple[int, int, int]] = IMAGENET_SIZES,
    prefix: str = "",
) -> None:
    """Write the fixture ``name``: what ``model`` makes of seeded weights, in float64."""
    shapes = give_seeded_weights(model, prefix)
    model = model.double().eval()
    logits: Dict[str, np.ndarray] = {}
    for height, width, count in sizes:
        image = torch.from_numpy(seeded.images(height, width, count)).double()
        with torch.no_grad():
            logits[f"{height}x{width}"] = model(image).numpy()
    fixtures.save(name, arch, f"{source}, torch {torch.__version__}", shapes, logits)
