"""Networks compiled for inference on a CPU.

A network's own ``forward`` is walked once over operations that note down what is to be done
(recorder.py), and what they noted becomes a plan for every shape of images (plan.py). Weights are
packed once for all shapes, and anew when one of them has changed.
"""

import logging
import threading
import weakref
from collections import OrderedDict
from typing import Any, Callable, Dict, List, Optional, Set, Tuple, Union
from weakref import WeakKeyDictionary

import megengine.module as M
import numpy as np
from megengine import Tensor
from megengine.core.tensor.dtype import bfloat16

from .build import Kernels, processor_flags
from .functions import needs_gradient, to_maps, to_rows
from .plan import Clock, Maps, Plan, Weights, ranges_of
from .quantize import Calibration, LayerRanges, layer_ranges, quantities_of, ranges_for
from .recorder import CannotCompile, Folds, Node, Value, record
from .steps import BFLOAT16, BYTE, FLOAT

_SHAPES = 8  # plans of a network that are kept
# Pixels that are computed at once, 16 images of 224 x 224: as fast as more, in bounded memory.
_PIXELS = 16 * 224 * 224
_EDGE = 224  # of the images by which weights are read in advance; any will do
ELEMENTS = {"fp32": FLOAT, "bf16": BFLOAT16, "int8": BYTE}

logger = logging.getLogger(__name__)


INSTRUCTIONS = {"bf16": ("bfloat16", "avx512_bf16"), "int8": ("8-bit", "avx512_vnni")}


def require_instructions(kernels: Kernels, precision: str) -> None:
    """See that kernels can compute in ``precision``.

    Raises:
        ValueError: where the CPU, or what the kernels were compiled for, cannot.
    """
    if precision not in INSTRUCTIONS:
        return
    kind, needed = INSTRUCTIONS[precision]
    if needed not in processor_flags():
        raise ValueError(f"precision {precision}: this CPU has no {kind} instructions ({needed})")
    if not kernels.convolves(ELEMENTS[precision]):
        raise ValueError(f"precision {precision}: CXXFLAGS leave its instructions out ({needed})")


class Watch:
    """Notices when a network is not what it was: other weights, modes, layers or hooks."""

    def __init__(self, network: M.Module):
        self._lengths: List[Tuple[Any, int]] = []
        self._same: List[Tuple[Dict[str, Any], str, Any]] = []
        self._tensors: List[Tuple[Any, int]] = []
        self.tensors: List[Tensor] = []
        for module in network.modules():
            self._lengths.append((module.__dict__, len(module.__dict__)))
            for name, value in module.__dict__.items():
                if isinstance(value, (Tensor, M.Module, bool)):
                    self._same.append((module.__dict__, name, value))
                if isinstance(value, Tensor):
                    self._tensors.append((value, value.value_id()))
                    self.tensors.append(value)
                if isinstance(value, (dict, list)):  # of hooks, and Sequential's names
                    self._lengths.append((value, len(value)))

    def unchanged(self) -> bool:
        return (
            all(len(each) == length for each, length in self._lengths)
            and all(each.get(name) is value for each, name, value in self._same)
            and all(tensor.value_id() == number for tensor, number in self._tensors)
        )


class Compiled:
    """A network's plans, by what is computed and by the shape of the images.

    Any thread may call it. What cannot be compiled is said once.

    Args:
        network: computes by ``ops``, as all networks of the project do.
        precision: of maps and weights: fp32, bf16 or int8.
        calibration: for int8, ``(N, H, W, C)`` normalised images that are like those to come, or
            what ``layer_ranges`` has found with such.
        any_mode: whether a network in training mode is computed as in evaluation, too.
    """

    def __init__(
        self,
        kernels: Kernels,
        network: M.Module,
        precision: str = "fp32",
        calibration: Optional[Calibration] = None,
        any_mode: bool = False,
    ):
        self._kernels = kernels
        self._any_mode = any_mode
        self._network = weakref.ref(network)
        self._element = ELEMENTS[precision]
        self._calibration = calibration
        self._lock = threading.RLock()
        self._plans: OrderedDict[Tuple[Any, ...], Union[Plan, CannotCompile]] = OrderedDict()
        self._weights: Dict[Any, Weights] = {}
        self._folds: Folds = {}
        self._ranges: Dict[Any, LayerRanges] = {}
        self._watch: Optional[Watch] = None
        self._said: Set[str] = set()

    def tensors(self) -> List[Tensor]:
        """The network's parameters and statistics."""
        with self._lock:
            return self._watched().tensors

    def read_weights(self, compute: Callable, channels: int) -> None:
        """Read what ``compute`` needs now, so that other threads need not, which MegEngine refuses.

        Raises:
            CannotCompile: as when it is called.
        """
        with self._lock:
            self._watched()
            self._recorded(self._network(), compute, (1, _EDGE, _EDGE, channels))

    def __call__(
        self, compute: Callable, x: np.ndarray, clock: Optional[Clock] = None
    ) -> Union[np.ndarray, Maps]:
        """``compute(network, x)`` for ``(N, H, W, C)`` float32 or bfloat16, as a plan takes it.

        Args:
            compute: a function of the network and its images, such as its class's ``forward``.
            clock: as a plan's.

        Returns:
            What it returns, with maps as ``(N, H, W, C)`` float32 and vectors as ``(N, C)``.

        Raises:
            CannotCompile: when it does what is not known here.
        """
        at_once = max(1, _PIXELS // (x.shape[1] * x.shape[2]))
        if len(x) > at_once:
            parts = (x[begin : begin + at_once] for begin in range(0, len(x), at_once))
            return _joined([self(compute, part, clock) for part in parts])
        key = (compute, x.shape)
        with self._lock:
            self._watched()
            if key not in self._plans:
                self._plans[key] = self._plan_or_reason(compute, x.shape)
            self._plans.move_to_end(key)
            while len(self._plans) > _SHAPES:
                self._plans.popitem(last=False)
            plan = self._plans[key]
        if isinstance(plan, CannotCompile):
            raise plan
        found = plan(x, clock)
        return found.get("", found)

    def _watched(self) -> "Watch":
        if self._watch is None or not self._watch.unchanged():
            self._plans.clear()
            self._weights.clear()
            self._ranges.clear()
            self._folds.clear()
            self._watch = Watch(self._network())
        return self._watch

    def _plan_or_reason(
        self, compute: Callable, shape: Tuple[int, ...]
    ) -> Union[Plan, CannotCompile]:
        try:
            return self._plan(compute, shape)
        except CannotCompile as reason:
            if str(reason) not in self._said:
                self._said.add(str(reason))
                logger.warning("inference layer by layer, which is slower: %s", reason)
            return reason

    def _plan(self, compute: Callable, shape: Tuple[int, ...]) -> Plan:
        network = self._network()
        assert network is not None  # it is what calls
        if not self._any_mode and any(map(_trains, network.modules())):
            raise CannotCompile("some of the network is in training mode")
        if any(_hooks(module) for module in network.modules()):
            raise CannotCompile("a layer has a hook")
        nodes, x, outputs = self._recorded(network, compute, shape)
        weights = self._weights.setdefault(compute, Weights())
        common = (self._kernels, nodes, x, outputs, weights, self._element)
        if self._element != BYTE:
            return Plan(*common)
        if compute not in self._ranges:
            self._ranges[compute] = self._found_ranges(network, compute)
        ranges = ranges_for(nodes, x, self._ranges[compute])
        return Plan(*common, quantities_of(nodes, x, ranges))

    def layer_ranges(self, compute: Callable) -> LayerRanges:
        """What the images to calibrate with give, for networks of the same weights to come."""
        with self._lock:
            self._watched()
            return self._found_ranges(self._network(), compute)

    def _found_ranges(self, network: M.Module, compute: Callable) -> LayerRanges:
        images = self._calibration
        if images is None:
            raise CannotCompile("int8 needs images to calibrate with")
        if not isinstance(images, np.ndarray):
            return images
        nodes, x, _ = self._recorded(network, compute, (1, *images.shape[1:]))
        return layer_ranges(nodes, x, ranges_of(self._kernels, nodes, x, images))

    def _recorded(
        self, network: M.Module, compute: Callable, shape: Tuple[int, ...]
    ) -> Tuple[List[Node], Value, Dict[str, Value]]:
        count, height, width, channels = shape
        x = Value((count, channels, height, width))
        nodes, outputs = record(network, self._watched().tensors, compute, x, self._folds)
        return nodes, x, outputs


def _joined(parts: List[Any]) -> Any:
    if isinstance(parts[0], dict):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return np.concatenate(parts)


def _trains(module: M.Module) -> bool:
    """Whether a module does what it does in training, and that is something else."""
    return module.training and not isinstance(module, (M.Linear, M.Conv2d, M.ReLU, M.Identity))


def _hooks(module: M.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


class Compiler:
    """Computes networks as a whole, for operations that are asked to (``PlainOps.whole``)."""

    def __init__(
        self,
        kernels: Kernels,
        precision: str = "fp32",
        calibration: Optional[Calibration] = None,
        any_mode: bool = False,
    ):
        self._how = (precision, calibration, any_mode)
        self._any_mode = any_mode
        self._kernels = kernels
        self._compiled: WeakKeyDictionary[M.Module, Compiled] = WeakKeyDictionary()

    def __call__(self, network: M.Module, method: Callable, x: Any) -> Any:
        """``method(network, x)`` for a Tensor or an array ``(N, C, H, W)``, and as such.

        An array may come from any thread, as long as a plan computes it.

        Raises:
            RuntimeError: for an array that no plan computes in a thread in which MegEngine cannot.
        """
        if not isinstance(x, np.ndarray):
            return self._of_tensor(network, method, x)
        try:
            if x.ndim != 4 or x.size == 0 or network.training and not self._any_mode:
                raise CannotCompile("images of (N, C, H, W) in evaluation mode expected")
            x = np.asarray(x, np.float32)
            rows = x.transpose(0, 2, 3, 1)
            if not (rows.flags.c_contiguous or x.flags.c_contiguous):
                rows = np.ascontiguousarray(rows)
            found = self.compiled(network)(method, rows)
        except CannotCompile as reason:  # which was said
            return _layer_by_layer(network, method, x, reason)
        return _each(lambda y: y.transpose(0, 3, 1, 2), found)

    def compiled(self, network: M.Module) -> Compiled:
        """The plans of a network."""
        found = self._compiled.get(network)
        if found is None:
            made = Compiled(self._kernels, network, *self._how)
            found = self._compiled.setdefault(network, made)
        return found

    def _of_tensor(self, network: M.Module, method: Callable, x: Tensor) -> Any:
        fits = isinstance(x, Tensor) and x.ndim == 4 and x.size > 0
        if not fits or network.training or x.dtype not in (np.float32, bfloat16):
            return method(network, x)
        compiled = self.compiled(network)
        if needs_gradient(x, *compiled.tensors()):
            return method(network, x)
        try:
            found = compiled(method, to_rows(x).numpy())
        except CannotCompile:  # which was said
            return method(network, x)
        return _each(lambda y: to_maps(Tensor(y, device=x.device)), found, _on(x))


def _on(x: Tensor) -> Callable[[np.ndarray], Tensor]:
    return lambda y: Tensor(y, device=x.device)


def _layer_by_layer(
    network: M.Module, method: Callable, x: np.ndarray, reason: CannotCompile
) -> Union[np.ndarray, Dict[str, np.ndarray]]:
    try:
        found = method(network, Tensor(np.ascontiguousarray(x)))
        if isinstance(found, dict):
            return {name: each.numpy() for name, each in found.items()}
        return found.numpy()
    except RuntimeError as error:
        if "context.transformations" not in str(error):
            raise
        raise RuntimeError(
            "MegEngine computes in the thread that has imported it, whose context.transformations "
            f"no other has, and here no plan does: {reason}"
        ) from None


def _each(of_map: Callable, found: Any, of_vector: Callable = lambda y: y) -> Any:
    if isinstance(found, dict):
        return {name: _each(of_map, each, of_vector) for name, each in found.items()}
    return of_map(found) if found.ndim == 4 else of_vector(found)
