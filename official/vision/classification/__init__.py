"""ResNets for image classification on MegEngine."""

from pkgutil import extend_path

__version__ = "0.1.0"
__path__ = extend_path(__path__, __name__)  # see ``official``

from .ops.accelerate import accelerate
from .prediction.inference import inference_model
from .resnet.pretrained import set_loader
from .zoo import fill_pretrained, get_model, list_models

set_loader(fill_pretrained)  # the networks take pretrained=, and know nothing of files

__all__ = ["__version__", "accelerate", "get_model", "inference_model", "list_models"]
