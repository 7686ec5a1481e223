"""Reads a pickle as data: nothing that the file names is imported and no code of its choosing runs.

A pickle is a program for a small stack machine. ``pickletools`` in CPython's library documents its
instructions; PEP 307 added protocol 2, PEP 3154 protocol 4 and PEP 574 protocol 5. Three of them
reach outside the data: GLOBAL looks a name up, REDUCE and NEWOBJ call it, BUILD sets its state.
Here a name is looked up in a mapping that the caller gives, and nowhere else.

The instructions below are those that the binary protocols use for checkpoints of MegEngine and
PyTorch and for CIFAR's archives. Here any other name is refused, and so are sets, big integers,
out-of-band buffers and recursive tuples; ``lenient_pickle`` passes over some of that.

What a hostile file can cost is bounded:

* A length is checked against the bytes that remain before anything is allocated, so memory is a
  fixed multiple of the file's size and of MAX_INSTRUCTIONS.
* MAX_INSTRUCTIONS bounds the time.
* A result is at most MAX_DEPTH deep and has no cycles, so callers may walk it recursively.

One thing is up to the caller: a file can call an allowed name again and again with the same
memoised argument, so what the mapping holds must take constant time and memory, and copy no data.
"""

import struct
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, Union

from .contents import Fault

# The longest honest pickle in sight, CIFAR-100's 50,000 file names and labels, takes 200,000 to
# 300,000; a ResNet-152 with its optimizer takes 100,000. The limit is reached in about a second.
MAX_INSTRUCTIONS = 1_000_000
# {"state_dict": {name: array}} is 2 deep and a configuration tree perhaps 10.
MAX_DEPTH = 64
MAX_NAME_BYTES = 256  # one line of GLOBAL: a module or a name in it

_CONTAINERS = (dict, list, tuple)

Buffer = Union[bytes, bytearray, memoryview]
Allowed = Mapping[Tuple[str, str], object]
PersistentLoad = Callable[[object], object]


class PickleDataError(Fault):
    """A pickle that is damaged, or that asks for more than plain data. Says what and where.

    ``refused`` is the name that it asks for, such as "os.system", or empty.
    """

    def __init__(self, message: str, refused: str = "") -> None:
        super().__init__(message, intact=bool(refused))
        self.refused = refused


class Inert:
    """What to allow for a type that a file mentions, as an argument say, but never calls."""

    def __init__(self, name: str) -> None:
        self.name = name


def load(
    data: Buffer, allowed: Allowed, persistent_load: Optional[PersistentLoad] = None, start: int = 0
) -> Tuple[object, int]:
    """Read the pickle that starts at ``start``: its value, and the offset just after its end.

    ``allowed`` maps (module, name) to what REDUCE and NEWOBJ call in its place. BUILD hands the
    state to the ``set_state`` method of what such a call returned. ``persistent_load`` turns a
    persistent id into a value; without it those are refused. Text of Python 2 is read as latin-1.

    Raises:
        PickleDataError: with the reason and the offset.
    """
    machine = Machine(data, allowed, persistent_load, start)
    value = machine.run()
    if isinstance(value, _CONTAINERS):
        _height(value, {}, MAX_DEPTH)
    return value, machine.position


def shown(text: str) -> str:
    """A name from a file, made safe and short enough for an error message."""
    safe = ascii(text)[1:-1]
    return safe if len(safe) <= 80 else safe[:77] + "..."


def _height(value: Iterable, heights: Dict[int, int], room: int) -> int:
    """How many containers deep ``value`` is; more than ``room`` is an error, and so is a cycle.

    Each container is entered once (``heights`` remembers it), and never more than MAX_DEPTH deep.
    """
    if id(value) not in heights and room > 0:
        children = value.values() if isinstance(value, dict) else value
        nested = [child for child in children if isinstance(child, _CONTAINERS)]
        heights[id(value)] = 1 + max((_height(c, heights, room - 1) for c in nested), default=0)
    if heights.get(id(value), 1) > room:
        raise PickleDataError(f"lists, tuples or dicts are nested more than {MAX_DEPTH} deep")
    return heights[id(value)]


class Machine:
    """The stack machine. A MARK sets the stack aside; what follows is collected on a new one."""

    instructions: Mapping[int, Callable[[Any], object]] = {}

    def __init__(
        self, data: Buffer, allowed: Allowed, persistent_load: Optional[PersistentLoad], start: int
    ) -> None:
        self.position = start
        self._data = memoryview(data).cast("B")
        self._allowed = allowed
        # An allowed target is known again by identity: no value read from the file can pose as one.
        self._names = {id(target): ".".join(name) for name, target in allowed.items()}
        self._persistent_load = persistent_load
        self._stack: List[object] = []
        self._set_aside: List[List[object]] = []
        self._memo: Dict[int, object] = {}  # a dict: an index of 2**32 - 1 costs nothing

    def run(self) -> object:
        at = self.position
        try:
            self._read_protocol()
            for _ in range(MAX_INSTRUCTIONS):
                at = self.position
                if at == len(self._data):
                    raise PickleDataError("the end is missing")
                self.position += 1
                code = self._data[at]
                if code == ord("."):
                    return self._result()
                instruction = self.instructions.get(code)
                if instruction is None:
                    raise PickleDataError(f"instruction 0x{code:02x} has no place in a weight file")
                instruction(self)
            raise PickleDataError(f"more than {MAX_INSTRUCTIONS:,} instructions")
        except IndexError:  # a stack that is too short
            message = "an instruction needs values that are not there"
            raise PickleDataError(f"{message} (at byte {at:,})") from None
        except PickleDataError as error:
            raise PickleDataError(f"{error} (at byte {at:,})", error.refused) from error.__cause__

    def _read_protocol(self) -> None:
        mark, version = self._slice(2)
        if mark != 0x80 or not 2 <= version <= 5:
            raise PickleDataError("no pickle of protocol 2 to 5 starts here")

    def _result(self) -> object:
        value = self._pop()
        if self._stack or self._set_aside:
            raise PickleDataError("values are left over at the end")
        return value

    def _slice(self, count: int) -> memoryview:
        end = self.position + count
        if end > len(self._data):
            left = max(0, len(self._data) - self.position)
            raise PickleDataError(f"{count:,} bytes are needed and {left:,} are left")
        piece = self._data[self.position : end]
        self.position = end
        return piece

    def _uint(self, width: int) -> int:
        return int.from_bytes(self._slice(width), "little")

    def _sized(self, width: int) -> memoryview:
        """The bytes after a length of ``width`` bytes."""
        return self._slice(self._uint(width))

    def _line(self) -> str:
        window = bytes(self._data[self.position : self.position + MAX_NAME_BYTES])
        length = window.find(b"\n")
        if length < 0:
            raise PickleDataError("a name has no end")
        self.position += length + 1
        return self._text(memoryview(window)[:length])

    def _text(self, raw: memoryview) -> str:
        return _utf8(raw)

    def _pop(self) -> object:
        return self._stack.pop()

    def _pop_to_mark(self) -> List[object]:
        items, self._stack = self._stack, self._set_aside.pop()
        return items

    def _frame(self) -> None:
        """A hint for reading ahead. It only has to be honest."""
        length = self._uint(8)
        if length > len(self._data) - self.position:
            raise PickleDataError(f"a frame of {length:,} bytes goes past the end")

    def _mark(self) -> None:
        self._set_aside.append(self._stack)
        self._stack = []

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise PickleDataError(f"memo {index} is read before it is written")
        self._stack.append(self._memo[index])

    def _tuple(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError
        items = tuple(self._stack[-count:])
        self._stack[-count:] = [items]

    def _tuple_to_mark(self) -> None:
        items = self._pop_to_mark()  # which changes the stack to push on
        self._stack.append(tuple(items))

    def _append(self) -> None:
        self._extend([self._pop()])

    def _extend(self, items: List[object]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise PickleDataError(f"appends to a value of type {type(target).__name__}")
        target.extend(items)

    def _set_items(self, items: List[object]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise PickleDataError(f"sets items of a value of type {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2]):
            # Not isinstance: a bool is an int. Hashing a nested tuple would recurse.
            if type(key) not in (str, int):
                raise PickleDataError(f"a dict key is of type {type(key).__name__}; expected text")
            if key in target:
                raise PickleDataError(f"the dict key {shown(str(key))} comes twice")
            target[key] = value

    def _set_item(self) -> None:
        value = self._pop()
        self._set_items([self._pop(), value])

    def _find(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleDataError("a name is not text")
        if (module, name) not in self._allowed:
            found = f"{shown(module)}.{shown(name)}"
            raise PickleDataError(f"refuses {found}: it is not data", found)
        self._stack.append(self._allowed[module, name])

    def _global(self) -> None:
        module = self._line()
        self._find(module, self._line())

    def _stack_global(self) -> None:
        name = self._pop()
        self._find(self._pop(), name)

    def _reduce(self) -> None:
        args, target = self._pop(), self._pop()
        name = self._names.get(id(target))
        if name is None or not callable(target) or not isinstance(args, tuple):
            raise PickleDataError(f"calls a value of type {type(target).__name__}")
        self._stack.append(_guarded(name, target, args))

    def _newobj(self) -> None:
        if len(self._stack) < 2 or not isinstance(self._stack[-2], type):
            raise PickleDataError("makes an instance of something that is no class")
        self._reduce()

    def _build(self) -> None:
        state, target = self._pop(), self._stack[-1]
        # Looked up on the type: only classes of ours have it, and no file can give it to a value.
        set_state = getattr(type(target), "set_state", None)
        if set_state is None:
            raise PickleDataError(f"sets the state of a value of type {type(target).__name__}")
        _guarded(type(target).__name__, set_state, (target, state))

    def _persistent(self) -> None:
        if self._persistent_load is None:
            raise PickleDataError("refers to data outside the file")
        self._stack.append(_guarded("a persistent id", self._persistent_load, (self._pop(),)))

    def _long(self) -> None:
        digits = self._sized(1)
        if len(digits) > 8:
            raise PickleDataError(f"an integer of {len(digits)} bytes; expected at most 8")
        self._stack.append(int.from_bytes(digits, "little", signed=True))


def _utf8(raw: memoryview) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        raise PickleDataError("a text is not UTF-8") from None


def _guarded(name: str, target: Callable, args: Iterable[object]) -> object:
    """Calls one of the caller's own functions; arguments it cannot take are the file's fault."""
    try:
        return target(*args)
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise PickleDataError(f"{name} is given something it cannot take") from error


INSTRUCTIONS: Dict[int, Callable[[Any], object]] = {
    ord("N"): lambda m: m._stack.append(None),
    0x88: lambda m: m._stack.append(True),
    0x89: lambda m: m._stack.append(False),
    ord("J"): lambda m: m._stack.append(int.from_bytes(m._slice(4), "little", signed=True)),
    ord("K"): lambda m: m._stack.append(m._uint(1)),
    ord("M"): lambda m: m._stack.append(m._uint(2)),
    0x8A: Machine._long,
    ord("G"): lambda m: m._stack.append(struct.unpack(">d", m._slice(8))[0]),
    # Text of Python 2, which is bytes of Python 3: SHORT_BINSTRING, BINSTRING
    ord("U"): lambda m: m._stack.append(str(m._sized(1), "latin-1")),
    ord("T"): lambda m: m._stack.append(str(m._sized(4), "latin-1")),
    # SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
    ord("C"): lambda m: m._stack.append(bytes(m._sized(1))),
    ord("B"): lambda m: m._stack.append(bytes(m._sized(4))),
    0x8E: lambda m: m._stack.append(bytes(m._sized(8))),
    0x96: lambda m: m._stack.append(bytes(m._sized(8))),
    # SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
    0x8C: lambda m: m._stack.append(m._text(m._sized(1))),
    ord("X"): lambda m: m._stack.append(m._text(m._sized(4))),
    0x8D: lambda m: m._stack.append(m._text(m._sized(8))),
    # EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE
    ord(")"): lambda m: m._stack.append(()),
    0x85: lambda m: m._tuple(1),
    0x86: lambda m: m._tuple(2),
    0x87: lambda m: m._tuple(3),
    ord("t"): Machine._tuple_to_mark,
    # EMPTY_LIST, APPEND, APPENDS
    ord("]"): lambda m: m._stack.append([]),
    ord("a"): Machine._append,
    ord("e"): lambda m: m._extend(m._pop_to_mark()),
    # EMPTY_DICT, SETITEM, SETITEMS
    ord("}"): lambda m: m._stack.append({}),
    ord("s"): Machine._set_item,
    ord("u"): lambda m: m._set_items(m._pop_to_mark()),
    # BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
    ord("q"): lambda m: m._put(m._uint(1)),
    ord("r"): lambda m: m._put(m._uint(4)),
    0x94: lambda m: m._put(len(m._memo)),
    ord("h"): lambda m: m._get(m._uint(1)),
    ord("j"): lambda m: m._get(m._uint(4)),
    # MARK, FRAME, GLOBAL, STACK_GLOBAL, BINPERSID, REDUCE, NEWOBJ, BUILD
    ord("("): Machine._mark,
    0x95: Machine._frame,
    ord("c"): Machine._global,
    0x93: Machine._stack_global,
    ord("Q"): Machine._persistent,
    ord("R"): Machine._reduce,
    0x81: Machine._newobj,
    ord("b"): Machine._build,
}
Machine.instructions = INSTRUCTIONS
