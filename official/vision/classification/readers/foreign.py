"""What plays the names of a pickle that nobody here knows: inert, whatever is done with it.

A checkpoint of a training run mentions classes of the one who saved it: dates, sets, configurations
and whole networks. Nothing of them is imported or called. A ``Foreign`` stands for such a value; it
remembers its name, and the items and the state that it is given, which are data read from the same
file, and drops all else. Weights that lie beside it are read as if it were not there.

Some names have no place in a checkpoint at all: a file that asks for ``os.system`` is an attack and
is refused as a whole.
"""

from typing import Dict, Optional

# Modules whose functions act on the machine or run code, and what of Python's own is only data.
_ATTACKS = """
    os posix nt subprocess sys runpy pty socket shutil importlib ctypes commands webbrowser code
    codeop imp pkgutil pip pdb bdb profile cProfile timeit
""".split()
_BUILTINS = """
    set frozenset list dict tuple int long float complex str unicode bytes bytearray bool slice
    range xrange object type getattr NoneType Ellipsis NotImplemented
""".split()
_BUILTIN_MODULES = ("builtins", "__builtin__")


# Functions and classes of PyTorch that make tensors which are not plain numbers.
_TENSORS = {
    "_rebuild_qtensor": "a quantised tensor",
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_sparse_csr_tensor": "a sparse tensor",
    "_rebuild_nested_tensor": "a nested tensor",
    "_rebuild_meta_tensor_no_storage": "a tensor without numbers (device meta)",
    "_rebuild_wrapper_subclass": "a tensor of a class of its own, such as a shard",
    "ShardedTensor": "a shard",
    "DTensor": "a shard",
}


class Foreign:
    """A value of an unknown class, the class itself, or a known one that was given nonsense.

    Args:
        name: "module.name", as the file has it.
        fault: why a known one could not be made; empty for one that is not known.
    """

    __slots__ = ("damaged", "fault", "items", "name", "state")

    def __init__(self, name: str, fault: str = "") -> None:
        self.name = name
        self.damaged = bool(fault)
        kind = _TENSORS.get(name.rpartition(".")[2]) if name.startswith("torch.") else None
        self.fault = fault or (kind and f"is {kind}") or f"refuses {name}: it is not data"
        self.items: Optional[Dict[object, object]] = None
        self.state: Optional[Dict[object, object]] = None

    def called(self) -> "Foreign":
        """What a call of it returns, or an instance of it. The arguments are dropped."""
        return self if self.damaged else Foreign(self.name)

    def set_item(self, key: object, value: object) -> None:
        """As a class made from dict would keep it."""
        if self.items is None:
            self.items = {}
        if type(key) in (str, int):
            self.items[key] = value

    def set_state(self, state: object) -> None:
        """The state is attributes by name, or a pair of these and those of slots."""
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], dict):
            state = state[0]
        if isinstance(state, dict):
            self.state = state


def is_attack(module: str, name: str) -> bool:
    """Whether no honest checkpoint mentions this name."""
    if module in _BUILTIN_MODULES:
        known = name.split(".")[0] in _BUILTINS or name.endswith(("Error", "Exception", "Warning"))
        return not known
    return module.split(".")[0] in _ATTACKS
