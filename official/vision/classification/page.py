"""Pages of HTML that need no other file, in English or Chinese, from templates in assets/report."""

import base64
import hashlib
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Sequence

import jinja2

from .readers.yaml_file import read_yaml_file
from .text import printable

LANGUAGES = ("en", "zh")
TEMPLATES = Path(__file__).resolve().parents[2] / "assets" / "report"

Say = Callable[..., str]


class Tile(NamedTuple):
    """One of the numbers on top of a page, with smaller lines below."""

    name: str
    value: str
    below: Sequence[str]


def language_of(asked: Optional[str], environment: Mapping[str, str] = os.environ) -> str:
    """``asked``, or that of the locale where there are words for it, else English."""
    if asked:
        return asked
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):  # in the order of POSIX
        if environment.get(variable):
            return "zh" if environment[variable].lower().startswith("zh") else "en"
    return "en"


@lru_cache(maxsize=None)
def words(language: str) -> Dict[str, str]:
    """What English messages are called in ``language``; nothing for English."""
    path = TEMPLATES / f"{language}.yaml"
    return read_yaml_file(path) if language != "en" else {}


def speaker(language: str) -> Say:
    """``say("%(n)s images", n=3)`` in that language."""
    known = words(language)

    def say(message: str, **values: Any) -> str:
        text = known.get(message, message)
        return text % values if values else text

    return say


def render(content: Dict[str, Any], template: str, language: str = "en") -> bytes:
    """The page with ``content`` in the places of a template: a file of ``TEMPLATES``, or its text.

    Names of classes and files are foreign: jinja2 escapes them, and control characters in them are
    written as escapes, as on a terminal. Of scripts, browsers run the template's own only, by its
    digest in the page's content security policy.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(TEMPLATES)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share, digits=1: f"{100 * share:.{digits}f} %"
    environment.filters["count"] = lambda number: f"{number:,}"
    is_file = template.endswith(".html")
    text = (TEMPLATES / template).read_text("utf-8") if is_file else template
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    own = {path.name: path.read_text("utf-8") for path in TEMPLATES.glob("*.js")}
    digests = [
        base64.b64encode(hashlib.sha256(_whole(script, own).encode()).digest()).decode()
        for script in scripts
    ]
    shared = {
        "file": lambda name: (TEMPLATES / name).read_text("utf-8"),
        "script_sources": " ".join(f"'sha256-{digest}'" for digest in digests),
        "language": {"zh": "zh-Hans"}.get(language, language),
        "_": speaker(language),
    }
    environment.globals.update(shared)
    return environment.from_string(text).render(content).encode("utf-8")


def _shown(value: Any) -> Any:
    """What was marked as safe is no longer a plain str, and stays as it is."""
    return printable(value) if type(value) is str else value


def _whole(script: str, files: Dict[str, str]) -> str:
    """What stands between the tags: ``{{ file("page.js")|safe }}`` for such a file of our own."""
    named = re.fullmatch(r'\{\{ file\("(.+)"\)\|safe \}\}', script)
    return files[named[1]] if named else script
