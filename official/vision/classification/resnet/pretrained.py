"""``pretrained=`` on every network, without this room knowing where weights come from.

The networks do no I/O. The zoo, which does, hands its loader over when the package is imported
(``official/vision/classification/__init__.py``).
"""

import functools
from typing import Any, Callable, Optional, Union

import megengine.module as M

from ..ops.accelerate import compile
from ..ops.process import calm_polling

Pretrained = Union[bool, str]  # False, True (the default weights), "best", a row's name, a path
Loader = Callable[[M.Module, str, Pretrained], None]

_loader: Optional[Loader] = None

_ARGUMENTS = """

    Keyword arguments:
        pretrained: False; True for the default weights; "best" for the most accurate published
            ones that may be used commercially; the name of a published row; or the path of a
            weight file. Weights are checked before they are used.
        compiled: True to get it in evaluation mode and compiled for inference on a CPU: then it
            also takes ``(N, 3, H, W)`` float32 arrays, from any thread. ``"bf16"`` for maps and
            weights in bfloat16, on processors that have instructions for it.
        num_classes: logits per image. With ``pretrained``, a number other than the weights'
            starts a new classifier and says so.
        All others are those of the network's class.

    Returns:
        the network, in training mode unless it is compiled; it takes ``(N, 3, H, W)`` float32 and
        returns logits.
    """


def set_loader(loader: Loader) -> None:
    """Say who fills a network when ``pretrained`` is not False."""
    global _loader  # noqa: PLW0603
    _loader = loader


def accepts_pretrained(build: Callable[..., M.Module]) -> Callable[..., M.Module]:
    """Give a network function the argument ``pretrained`` and the shared part of its docstring.

    In a module that ``resnet/__init__.py`` looks through, it also makes the function a network that
    the hub offers, ``--arch`` takes and ``list_models`` names.
    """

    @functools.wraps(build)
    def build_and_fill(
        pretrained: Pretrained = False, compiled: Union[bool, str] = False, **kwargs: Any
    ) -> M.Module:
        with calm_polling():
            model = build(**kwargs)
        if pretrained not in (False, None):
            if _loader is None:
                raise RuntimeError(
                    "pretrained= needs the zoo: import official.vision.classification"
                )
            _loader(model, build.__name__, pretrained)
        if compiled in (False, None):
            return model
        return compile(model, "fp32" if compiled is True else str(compiled))

    build_and_fill.is_network = True  # type: ignore[attr-defined]
    build_and_fill.__doc__ = (build.__doc__ or "") + _ARGUMENTS
    return build_and_fill
