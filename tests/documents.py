"""What README.md, CONTRIBUTING.md and docs/ show, for the tests that hold them to it.

A block of code may have a mark in the line above it, a comment that readers do not see:

    <!-- not run: why -->       its commands are only parsed, by their scripts' own parsers
    <!-- not checked: why -->   nor that
    <!-- file: name -->         it is the content of a file that later commands use

Blocks of bash and python without one are run, from the top of the document to its end.
"""

import argparse
import inspect
import re
import shlex
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence, Set, Tuple

import pytest

from tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = tuple(
    str(path.relative_to(ROOT))
    for path in (*sorted(ROOT.glob("*.md")), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/zh/*.md"))
)
# The same blocks as another document, whose are run or parsed: test_readme.py and
# test_docs_chinese.py compare them.
TRANSLATIONS = {
    "README.zh.md": "README.md",
    **{name: f"docs/{Path(name).name}" for name in DOCUMENTS if name.startswith("docs/zh/")},
}

_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>not run|not checked|file): (?P<note>[^\n]+) -->\n)?"
    r"```(?P<language>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block; ``note`` is what its mark says."""

    language: str
    text: str
    mark: str
    note: str

    @property
    def commands(self) -> List[str]:
        """The lines of a block of bash; one that ends in a backslash goes on in the next."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.startswith("#")]


def read(document: str) -> str:
    """The text of a document, by its path from the root."""
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str) -> List[Block]:
    """Its blocks of code from the top to the end."""
    found = _BLOCK.finditer(read(document))
    return [Block(m["language"], m["text"], m["mark"] or "", m["note"] or "") for m in found]


def prose(document: str) -> str:
    """Its text without the blocks of code."""
    return _BLOCK.sub("", read(document))


def tables(document: str) -> Iterator[List[List[str]]]:
    """The cells of every table, row by row, without the line under the head."""
    for table in re.findall(r"(?:^\|.*\|\n)+", prose(document), re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", line[1:-1]) for line in table.splitlines()]
        yield [[cell.strip() for cell in row] for row in (rows[0], *rows[2:])]


def spans(text: str) -> List[str]:
    """What stands between backquotes."""
    return re.findall(r"`([^`\n]+)`", text)


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"[^\w\s-]", "", heading.replace("`", "").strip().lower())
    return re.sub(r"\s", "-", text)


class _Parsed(Exception):
    """A script has read its command line, which is all that was wanted."""


def parse(script: str, words: Sequence[str]) -> Tuple[argparse.ArgumentParser, Any]:
    """The parser of a script and what it makes of a command line; the job is not done.

    Raises:
        AssertionError: for flags and values that the script refuses.
    """
    module, seen = load_script(script), []

    def noticed(original: Callable[..., Any]) -> Callable[..., None]:
        def parse_args(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
            seen.append(self)
            seen.append(original(self, *args, **kwargs))
            raise _Parsed

        return parse_args

    with pytest.MonkeyPatch.context() as patch:
        for name in ("parse_args", "parse_intermixed_args"):
            original = getattr(argparse.ArgumentParser, name)
            patch.setattr(argparse.ArgumentParser, name, noticed(original))
        try:
            module.main(list(words))
        except _Parsed:
            return seen[0], seen[1]
        except SystemExit as stop:
            if "--help" in words or stop.code == 0:
                return seen[0], None
            raise AssertionError(f"{script} refuses {shlex.join(words)}") from None
    raise AssertionError(f"{script} read no command line")


@lru_cache(maxsize=None)
def scripts() -> Tuple[str, ...]:
    """Every script of the root and of tools/ that has flags."""
    paths = [*ROOT.glob("*.py"), *ROOT.glob("tools/*.py")]
    names = [str(path.relative_to(ROOT)) for path in sorted(paths) if path.name != "hubconf.py"]
    return tuple(name for name in names if inspect.signature(load_script(name).main).parameters)


@lru_cache(maxsize=None)
def flags() -> Dict[str, Set[str]]:
    """Every script's flags."""
    return {name: set(parse(name, ["--help"])[0]._option_string_actions) for name in scripts()}
