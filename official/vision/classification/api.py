"""Training and testing from Python: what the scripts do, with their numbers.

    from official.vision.classification.api import test, train

    run = train(data="photos", arch="resnet18", pretrained=True, save="output")
    test(data="photos", model=run.best)["top1"]

The functions are here and not in the package itself, whose ``train`` and ``test`` are the modules
behind the scripts: importing such a module makes it an attribute of the package, in the place of
any function of that name. Both functions go through the scripts' own command lines, so that there
is one set of defaults and one set of messages.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

from . import test as test_script
from . import train as train_script
from .engine.console import read_metrics
from .engine.flags import Parser
from .errors import TrainingError, UsageError
from .training import trainer
from .training.checkpoint import read_checkpoint


@dataclass(frozen=True)
class TrainResult:
    """What a run has left.

    Args:
        folder: of the run: checkpoints, ``recipe.yaml``, ``metrics.jsonl``, ``README.md``.
        best: the weights that did best on the validation images.
        epoch: after which these were; 0 for a linear probe.
        metrics: of that epoch, as in ``metrics.jsonl``: ``val_top1`` and so on, in per cent.
        test: ``test_top1`` and so on, where the data set has test images that decided nothing.
        history: all rows of ``metrics.jsonl``.
    """

    folder: Path
    best: Path
    epoch: int
    metrics: Dict[str, Any]
    test: Dict[str, Any]
    history: List[Dict[str, Any]]


def train(
    data: Union[str, Path],
    arch: Optional[str] = None,
    pretrained: Union[bool, str, Path] = False,
    save: Union[str, Path] = "output",
    **keys: Any,
) -> TrainResult:
    """Train a network as ``train.py`` does.

    Args:
        data, arch, pretrained, save: as the flags of these names.
        keys: other flags of ``train.py`` by their long names with ``_`` for ``-``
            (``val_share=0.1``), and keys of a recipe: ``epochs=5``, ``patience=3``,
            ``loss={"class_weights": "balanced"}``.

    Raises:
        UserError: as the script says it.
        TrainingError: when a signal ended the run; ``resume="auto"`` goes on with it.
    """
    given = {"data": str(data), "arch": arch, "save": str(save), **keys}
    given["pretrained"] = pretrained if isinstance(pretrained, bool) else str(pretrained)
    parser = train_script.parser()
    flags = {key: value for key, value in given.items() if _is_flag(parser, key)}
    recipe = {key: value for key, value in given.items() if key not in flags}
    changes = [f"{key}={json.dumps(value)}" for key, value in _dotted(recipe)]
    args = _namespace(parser, flags, [part for change in changes for part in ("--set", change)])
    config = train_script.config_of(args)
    code = trainer.train(config)
    if code:
        raise TrainingError(f"the run was stopped; resume='auto' goes on with it ({save})")
    folder = Path(config.save) / config.arch
    rows = read_metrics(folder)
    best = _best_epoch(folder)
    found = {
        event: next((row for row in reversed(rows) if (row["event"], row["epoch"]) == wanted), {})
        for event, wanted in (("epoch", ("epoch", best)), ("test", ("test", best)))
    }
    return TrainResult(
        folder, folder / "best.safetensors", best, found["epoch"], found["test"], rows
    )


def test(
    data: Union[str, Path],
    model: Union[str, Path, None] = None,
    arch: Optional[str] = None,
    **flags: Any,
) -> Dict[str, Any]:
    """Test a network as ``test.py`` does; return what its ``--json`` writes.

    Args:
        data, model, arch: as the flags of these names.
        flags: the others by their long names with ``_`` for ``-``: ``split="test"``, ``tta=True``.

    Raises:
        UserError: as the script says it.
    """
    parser = test_script.parser()
    given = {"data": str(data), "model": None if model is None else str(model), "arch": arch}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        test_script.start(_namespace(parser, {**given, **flags, "json": str(result)}, []))
        return json.loads(result.read_text(encoding="utf-8"))


test.__test__ = False  # type: ignore[attr-defined]  # no test of pytest's


def _is_flag(parser: Parser, key: str) -> bool:
    return any(action.dest == key for action in parser._actions)


def _namespace(parser: Parser, flags: Dict[str, Any], more: List[str]) -> argparse.Namespace:
    """What the command line of these flags would be read as.

    Raises:
        UsageError: for a flag that the script does not have or a value that does not fit.
    """
    args = parser.parse_args(more)
    actions = {action.dest: action for action in parser._actions}
    for key, value in flags.items():
        action = actions.get(key)
        if action is None:
            raise UsageError(f"{key}: {parser.prog} has no flag --{key.replace('_', '-')}")
        if value is None or isinstance(value, bool):
            setattr(args, key, action.default if value is None else value)
            continue
        try:
            value = action.type(str(value)) if callable(action.type) else value
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"{key}: {error}") from None
        if action.choices is not None and value not in action.choices:
            raise UsageError(f"{key}: {value!r} is none of {', '.join(action.choices)}")
        setattr(args, key, value)
    return args


def _dotted(keys: Dict[str, Any], prefix: str = "") -> Iterator[Tuple[str, Any]]:
    """Keys of a recipe as ``--set`` has them, from dicts within dicts."""
    for key, value in keys.items():
        if isinstance(value, dict) and value:
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _best_epoch(folder: Path) -> int:
    return read_checkpoint(folder / "checkpoint.safetensors")[0].best_epoch
