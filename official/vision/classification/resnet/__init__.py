"""The networks: pure modules, no files and no network."""

from typing import Callable, Dict

import megengine.module as M

from . import cifar, model, preact

# Every network by its name: the functions of these modules that ``accepts_pretrained`` has marked.
ARCHS: Dict[str, Callable[..., M.Module]] = {
    name: build
    for module in (model, preact, cifar)
    for name, build in vars(module).items()
    if getattr(build, "is_network", False)
}
