"""Reads a pickle as ``pickle_data`` does, and passes over what it does not know.

Checkpoints of training runs hold sets, dates, big integers and objects of any class beside their
weights. Each becomes a ``Foreign``, which is inert, whatever the file does with it; so does a known
value that is given nonsense, such as a tensor that reaches past its storage, since it may be one
that nobody needs. The result may be of any depth and have cycles: callers walk it with care.
"""

from typing import List, Optional, Tuple

from .foreign import Foreign, is_attack
from .pickle_data import (
    INSTRUCTIONS,
    Allowed,
    Buffer,
    Inert,
    Machine,
    PersistentLoad,
    PickleDataError,
    shown,
)


class Spoilable:
    """A stand-in that may turn out to be nonsense after it was made. ``fault`` says why."""

    fault = ""


def load_leniently(
    data: Buffer, allowed: Allowed, persistent_load: Optional[PersistentLoad] = None, start: int = 0
) -> Tuple[object, int]:
    """Read the pickle that starts at ``start``; otherwise as ``pickle_data.load``.

    Raises:
        PickleDataError: for a file that is damaged, or that asks for what only an attack needs.
    """
    machine = _LenientMachine(data, allowed, persistent_load, start)
    return machine.run(), machine.position


class _LenientMachine(Machine):
    """Passes over what is not known, and what is known and does not add up."""

    def _text(self, raw: memoryview) -> str:
        try:
            return str(raw, "utf-8", "surrogatepass")  # as pickle does
        except UnicodeDecodeError:
            raise PickleDataError("a text is not UTF-8") from None

    def _find(self, module: object, name: object) -> None:
        named = isinstance(module, str) and isinstance(name, str)
        if not named or (module, name) in self._allowed or is_attack(str(module), str(name)):
            super()._find(module, name)
        else:
            self._stack.append(Foreign(f"{shown(str(module))}.{shown(str(name))}"))

    def _reduce(self) -> None:
        args, target = self._pop(), self._pop()
        if isinstance(target, Foreign):
            self._stack.append(target.called())
            return
        if isinstance(target, Inert):
            self._stack.append(Foreign(target.name, "calls a value of type Inert"))
            return
        self._stack += [target, args]
        try:
            super()._reduce()
        except PickleDataError as error:
            if error.refused or id(target) not in self._names:
                raise
            self._stack.append(Foreign(self._names[id(target)], str(error)))

    def _newobj(self) -> None:
        if len(self._stack) >= 2 and isinstance(self._stack[-2], (Foreign, Inert)):
            self._reduce()
        else:
            super()._newobj()

    def _newobj_with_names(self) -> None:
        self._pop()  # arguments that have names
        self._newobj()

    def _build(self) -> None:
        state = self._pop()
        target = self._stack[-1]
        self._stack.append(state)
        try:
            super()._build()
        except PickleDataError as error:
            if getattr(type(target), "set_state", None) is None:
                raise
            # The memo may have it too, so it is spoilt and not replaced.
            self._spoil(target, str(error))

    @staticmethod
    def _spoil(target: object, fault: str) -> None:
        if isinstance(target, Spoilable):
            target.fault = fault

    def _persistent(self) -> None:
        identifier = self._stack[-1]
        try:
            super()._persistent()
        except PickleDataError as error:
            if not _mentions_foreign(identifier):
                raise
            self._stack.append(Foreign("a persistent id", str(error)))

    def _extend(self, items: List[object]) -> None:
        if not isinstance(self._stack[-1], Foreign):
            super()._extend(items)

    def _set_items(self, items: List[object]) -> None:
        target = self._stack[-1]
        if len(items) % 2:
            raise PickleDataError("a key has no value")
        if isinstance(target, Foreign):
            for key, value in zip(items[::2], items[1::2]):
                target.set_item(key, value)
            return
        plain: List[object] = []
        for key, value in zip(items[::2], items[1::2]):
            if type(key) in (str, int):  # what has another key is of no use
                plain += [key, value]
        super()._set_items(plain)

    def _long(self) -> None:
        self._integer(self._sized(1))

    def _long_of_any_size(self) -> None:
        self._integer(self._sized(4))

    def _integer(self, digits: memoryview) -> None:
        if len(digits) > 8:
            self._stack.append(Foreign("builtins.int", f"an integer of {len(digits):,} bytes"))
        else:
            self._stack.append(int.from_bytes(digits, "little", signed=True))

    def _a_set(self) -> None:
        self._stack.append(Foreign("builtins.set"))

    def _frozen_set(self) -> None:
        self._pop_to_mark()
        self._a_set()


def _mentions_foreign(identifier: object) -> bool:
    return isinstance(identifier, tuple) and any(isinstance(part, Foreign) for part in identifier)


_LenientMachine.instructions = {
    **INSTRUCTIONS,
    ord("Q"): _LenientMachine._persistent,
    ord("R"): _LenientMachine._reduce,
    0x81: _LenientMachine._newobj,
    0x8A: _LenientMachine._long,
    ord("b"): _LenientMachine._build,
    ord("0"): Machine._pop,  # POP, POP_MARK: how pickle writes a tuple that holds itself
    ord("1"): Machine._pop_to_mark,
    # LONG4, EMPTY_SET, ADDITEMS, FROZENSET, NEWOBJ_EX
    0x8B: _LenientMachine._long_of_any_size,
    0x8F: _LenientMachine._a_set,
    0x90: lambda m: m._extend(m._pop_to_mark()),
    0x91: _LenientMachine._frozen_set,
    0x92: _LenientMachine._newobj_with_names,
}
