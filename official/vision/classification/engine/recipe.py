"""Recipes: YAML files that state how a network is trained, read, changed by flags, written."""

from dataclasses import fields
from pathlib import Path
from reprlib import Repr
from typing import Any, Dict, List, Tuple, Type

import yaml
from pydantic import ValidationError

from ..errors import UsageError
from ..preprocess import Preprocess
from ..readers.yaml_file import read_yaml, read_yaml_file
from ..section import Section, sections
from ..text import nearest, unknown
from .schema import Recipe

FOLDER = Path(__file__).resolve().parents[3] / "recipes"

_BRIEF = Repr()  # what a file holds may be of any length, or contain itself
_BRIEF.maxlevel = 2
_BRIEF.maxstring = 60


def load_recipe(name: str) -> Recipe:
    """Read a recipe by the path of its file or its name in ``official/recipes``.

    Raises:
        UsageError: naming the file and the key that is unknown or does not fit.
    """
    return parse_recipe(*_values(name))


def stated_preprocess(name: str) -> Dict[str, Any]:
    """What a recipe's file states itself under ``preprocess``; otherwise as ``load_recipe``."""
    values, _ = _values(name)
    return values.get("preprocess") or {}


def _values(name: str) -> Tuple[Any, str]:
    """What a recipe's file holds, and its path."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in FOLDER.glob("*.yaml"))
        near = nearest(Path(name).stem, known)  # another project's path, configs/resnet/NAME.py
        if near and Path(name).name != name:
            raise UsageError(f"-c {name}: no such file; did you mean -c {near[0]}?")
        raise UsageError(unknown("recipe", name, known, "official/recipes has all"))
    try:
        values = read_yaml_file(path)
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: not readable as YAML: {reason}") from None
    _refuse_foreign(values, path)
    return values, str(path)


def _refuse_foreign(values: Any, path: Path) -> None:
    """A configuration of MindCV, say, has hardly a key that we have: its first tells nothing."""
    keys = list(values) if isinstance(values, dict) else []
    foreign = [key for key in keys if key not in Recipe.model_fields]
    if len(foreign) > 3 and len(foreign) > len(keys) / 2:
        near = nearest(path.stem, [file.stem for file in FOLDER.glob("*.yaml")])
        raise UsageError(
            f"{path}: seems to be another project's configuration: "
            f"{', '.join(map(_BRIEF.repr, foreign[:3]))} and {len(foreign) - 3} more are no keys "
            f"of a recipe; {f'did you mean -c {near[0]}? ' if near else ''}docs/migrating.md tells "
            "what its keys are called here"
        )


def parse_recipe(values: Any, source: str) -> Recipe:
    """Check a recipe's keys and values.

    Raises:
        UsageError: for the first key that is unknown, with the nearest valid one, or unfit.
    """
    if not isinstance(values, dict):
        raise UsageError(f"{source}: expected keys and values, got {type(values).__name__}")
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{source}: {_explain(error)}") from None
    except (UsageError, OverflowError) as error:  # OverflowError: an integer above any float
        raise UsageError(f"{source}: {error}") from None


def parse_set(text: str) -> Tuple[str, Any]:
    """What ``--set KEY=VALUE`` changes, for ``override``.

    Args:
        text: a dotted key and its value in YAML, such as ``optimizer.lr=0.1``.

    Raises:
        UsageError: without a value, for a key that no recipe has, or for what is not YAML.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals:
        raise UsageError(f"--set {text}: expected KEY=VALUE, such as optimizer.lr=0.1")
    if key not in _dotted_keys(Recipe):
        raise UsageError(f"--set {text}: {_did_you_mean(key)}")
    try:
        return key, read_yaml(value)
    except ValueError as error:
        raise UsageError(f"--set {text}: not readable as YAML: {error}") from None


def override(recipe: Recipe, changes: Dict[str, Any]) -> Recipe:
    """The recipe with other values under dotted keys, such as ``optimizer.lr``.

    Another kind, such as that of ``optimizer.type``, drops what only the old one had; another
    ``preprocess.order`` alone takes mean and std along; a key of a section that is off turns it on.

    Raises:
        UsageError: for a key that is unknown or a value that does not fit.
    """
    values = {**recipe.model_dump(), "preprocess": recipe.preprocess}
    preprocess = {}
    for key, value in changes.items():
        if key not in _dotted_keys(Recipe):
            raise UsageError(f"flags: {_did_you_mean(key)}")
        if key.startswith("preprocess."):
            preprocess[key.split(".")[1]] = value
        else:
            _put(values, key, value)
    for name, section in sections(Recipe).items():
        if name not in changes and f"{name}.{section._kind}" in changes:
            for key in section.foreign(values[name][section._kind]):
                if f"{name}.{key}" not in changes:
                    values[name].pop(key, None)
    if preprocess:
        whole = values["preprocess"]
        whole = whole if isinstance(whole, Preprocess) else Preprocess.from_dict(whole)
        values["preprocess"] = whole.override(preprocess)
    return parse_recipe(values, "flags")


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, with every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def _put(values: Dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for name in sections:
        inner = values[name]
        values[name] = dict(inner) if isinstance(inner, dict) else {}
        values = values[name]
    values[last] = value


def _explain(error: ValidationError) -> str:
    """The first thing that is wrong, unknown keys before all else: they explain missing ones."""
    errors = error.errors(include_url=False)
    unknown_key = ("extra_forbidden", "invalid_key")
    first = next((each for each in errors if each["type"] in unknown_key), errors[0])
    where = [str(part) for part in first["loc"]]
    if first["type"] in unknown_key:
        return _did_you_mean(".".join(where))
    key = ".".join(where)
    if first["type"] == "missing":
        return f"the key {key!r} is missing"
    if first["type"] in ("model_type", "model_attributes_type"):
        return f"{key}: expected keys and values, got {_BRIEF.repr(first['input'])}"
    message = first["msg"]
    if first["type"] == "value_error":
        message = message[len("Value error, ") :]
    message = f"{key}: {message[0].lower()}{message[1:]}" if key else message
    is_whole_section = first["type"] == "value_error" and isinstance(first["input"], dict)
    return message if is_whole_section else f"{message}, got {_BRIEF.repr(first['input'])}"


def _did_you_mean(key: str) -> str:
    """A message for a key that is not there: its like in the same section, or in any other."""
    known = _dotted_keys(Recipe)
    section, _, last = key.rpartition(".")
    siblings = [other for other in known if other.rpartition(".")[0] == section]
    for candidates in (siblings, known):
        by_name = {other.rpartition(".")[2]: other for other in reversed(candidates)}
        near = nearest(last, by_name)
        if near:
            return f"unknown key {_BRIEF.repr(key)}; did you mean {by_name[near[0]]!r}?"
    return f"unknown key {_BRIEF.repr(key)}; docs/recipes.md has all"


def _dotted_keys(section: Type[Section]) -> List[str]:
    """Every key of a section and of those within it."""
    keys = list(section.model_fields)
    for name, inner in sections(section).items():
        keys += [f"{name}.{key}" for key in _dotted_keys(inner)]
    if section is Recipe:
        keys += [f"preprocess.{field.name}" for field in fields(Preprocess)]
    return keys
