"""What an exported file tells of itself: enough to prepare images and to read the logits."""

import json
from typing import Tuple

from ..zoo.models import image_size
from ..zoo.trained import Network

INPUT, OUTPUT = "images", "logits"


def input_shape(network: Network) -> Tuple[int, int, int]:
    """Channels, height and width of an image that is prepared as the network needs it.

    Where its preprocessing leaves the size to the image, the size that the network is made for.
    """
    preprocess = network.preprocess
    if preprocess.crop is None and isinstance(preprocess.resize, tuple):
        return (3, *preprocess.resize)
    size = preprocess.size or image_size(network.arch)
    return (3, size, size)


def describe(network: Network, precision: str) -> str:
    """A JSON object.

    Its keys: ``arch``; ``precision`` of the arithmetic, fp32 or int8; ``input`` and ``output``
    with name, type and shape; ``preprocess``, the fields of Preprocess, which give pixels on the
    0 to 255 scale; ``classes``, the names of the data set's folders, or null; ``names``, what to
    call each class, both in the order of the logits; and ``licence`` of the weights, or null.
    """
    floats = {"dtype": "float32"}
    return json.dumps(
        {
            "arch": network.arch,
            "precision": precision,
            "input": {"name": INPUT, **floats, "shape": ["N", *input_shape(network)]},
            "output": {"name": OUTPUT, **floats, "shape": ["N", network.num_classes]},
            "preprocess": network.preprocess.to_dict(),
            "classes": network.classes,
            "names": network.names,
            "licence": network.config.licence or None,
        }
    )
