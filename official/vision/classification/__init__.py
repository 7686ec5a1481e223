"""ResNets for image classification on MegEngine."""

from .engine.inference import inference_model
from .resnet.pretrained import set_loader
from .zoo import fill_pretrained, get_model, list_models

set_loader(fill_pretrained)  # the networks take pretrained=, and know nothing of files

__all__ = ["get_model", "inference_model", "list_models"]
