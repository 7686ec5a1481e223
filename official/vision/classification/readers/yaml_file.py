"""YAML and JSON from outside: recipes, ``--set``, ``--preprocess`` and class maps.

Stricter than YAML is. A key is its text as it is written (``no`` is no boolean, ``010`` no number)
and comes once; ``<<`` is a key like any other and merges nothing. Integers are decimal. Only plain
values have tags, and there are at most ``MAX_DEPTH`` levels, so that no file takes long to read or
becomes more than it shows.
"""

import errno
import re
from pathlib import Path
from typing import Any, Dict, List

MAX_BYTES = 1 << 20  # the names of ImageNet-21k's classes have 0.7 MB
MAX_DEPTH = 20
MAX_DIGITS = 100  # of a number, whose time grows with their square

_TAG = "tag:yaml.org,2002:"
_PLAIN = {_TAG + kind for kind in ("null", "bool", "int", "float", "str", "seq", "map")}
_TEXT = {_TAG + kind for kind in ("str", "merge", "value")}  # as a value, `<<` or `=` is a word


def read_yaml_file(path: Path) -> Any:
    """What a file holds; see ``read_yaml``.

    Raises:
        ValueError: with what is wrong, in one line.
        OSError: when the file cannot be read.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "a null character in its path")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError("it is no regular file")  # a pipe or a device may never end
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    return read_yaml(data.decode("utf-8"))  # UnicodeDecodeError is a ValueError


def read_yaml(text: str) -> Any:
    """The value of the one document in ``text``, None if it is empty.

    Raises:
        ValueError: with what is wrong, in one line.
    """
    import yaml  # who only loads a network through the hub may lack it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where PyYAML came with it
    try:
        return _Reader(loader(text)).document()
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


class _Reader:
    """Values from the parser's events, each of which is a node, or the start or end of one."""

    def __init__(self, loader: Any):
        self.loader = loader
        self.anchors: Dict[str, Any] = {}

    def document(self) -> Any:
        self.loader.get_event()  # the stream's start
        value, count = None, 0
        while not self._ends("Stream"):
            self.loader.get_event()  # the document's start
            value, count = self._value(0), count + 1
            self.loader.get_event()  # its end
        if count > 1:
            raise ValueError("it holds several documents")
        return value

    def _value(self, depth: int) -> Any:
        event = self.loader.get_event()
        kind = type(event).__name__
        if kind == "AliasEvent":
            if event.anchor not in self.anchors:  # nor is it, within the value that it stands for
                raise ValueError(f"{_line(event)}: *{event.anchor[:60]} stands for nothing")
            return self.anchors[event.anchor]
        if depth > MAX_DEPTH:
            raise ValueError(f"{_line(event)}: more than {MAX_DEPTH} levels")
        if event.tag not in (None, "!", *_PLAIN):
            raise ValueError(f"{_line(event)}: the tag {event.tag[:60]!r} is not read")
        read = {"ScalarEvent": self._scalar, "MappingStartEvent": self._mapping}
        value = read.get(kind, self._sequence)(event, depth)
        if event.anchor:
            self.anchors[event.anchor] = value
        return value

    def _sequence(self, _: Any, depth: int) -> List[Any]:
        values = []
        while not self._ends("Sequence"):
            values.append(self._value(depth + 1))
        self.loader.get_event()
        return values

    def _mapping(self, _: Any, depth: int) -> Dict[str, Any]:
        values: Dict[str, Any] = {}
        while not self._ends("Mapping"):
            event = self.loader.get_event()
            if type(event).__name__ != "ScalarEvent":
                raise ValueError(f"{_line(event)}: a key that is no word")
            if event.value in values:
                raise ValueError(f"{_line(event)}: the key {event.value[:60]!r} is there twice")
            values[event.value] = self._value(depth + 1)
        self.loader.get_event()
        return values

    def _scalar(self, event: Any, _: int) -> Any:
        from yaml import ScalarNode

        text, tag = event.value, event.tag
        if tag in (None, "!"):
            tag = self.loader.resolve(ScalarNode, text, event.implicit)
        if tag in _TEXT:
            return text
        if len(text) > MAX_DIGITS:
            raise ValueError(f"{_line(event)}: a number of {len(text):,} characters")
        if tag == f"{_TAG}int" or (tag == f"{_TAG}float" and ":" in text):
            # YAML 1.1's 010 is eight, and its 1:30 is ninety
            return int(text) if re.fullmatch("[-+]?[0-9]+", text) else text
        try:
            return self.loader.construct_object(ScalarNode(tag, text))
        except KeyError:  # !!bool perhaps
            raise ValueError(f"{_line(event)}: {text!r} is no boolean") from None

    def _ends(self, kind: str) -> bool:
        return type(self.loader.peek_event()).__name__ == f"{kind}EndEvent"


def _line(event: Any) -> str:
    return f"line {event.start_mark.line + 1}"
