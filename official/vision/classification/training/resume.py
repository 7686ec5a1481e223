"""Going on from a checkpoint: the latest that is whole, if it is of this run."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import numpy as np

from ..distributed.collectives import rank
from ..engine.class_scores import Best
from ..engine.recipe import Recipe
from ..errors import UsageError, WeightsError
from .checkpoint import Progress, read_checkpoint

logger = logging.getLogger(__name__)

# What follows the number of epochs when a run is made longer.
_OF_LENGTH = {"epochs", "schedule.milestones", "schedule.warmup_epochs"}
_SHOWN = 5  # keys that differ, in a message


def read_latest(paths: Sequence[Path]) -> Tuple[Path, Progress, Dict[str, np.ndarray]]:
    """The first of ``paths`` that is whole, and what ``read_checkpoint`` finds in it.

    Raises:
        WeightsError: what is wrong with the last one, when none is whole.
    """
    for path, before in zip(paths, (*paths[1:], None)):
        try:
            return (path, *read_checkpoint(path))
        except WeightsError as error:
            if before is None:
                raise
            if rank() == 0:
                logger.warning("%s; going back to %s", error, before)
    raise ValueError("no paths")


def require_same_recipe(path: Path, there: Progress, here: Progress, steps_per_epoch: int) -> str:
    """See that a run that is described by ``here`` may go on from the checkpoint ``path``.

    How many devices share the batch of an update may change. A run that has come to its end, or has
    lost its patience, may have more epochs and another patience; everything else stays.

    Args:
        there: what the checkpoint says.
        steps_per_epoch: of both, when they are of the same run.

    Returns:
        a line for the user where the run is made longer, else "".

    Raises:
        UsageError: naming every key that differs, with its value there and here.
        WeightsError: when the checkpoint's recipe, or its step, makes no sense.
    """
    try:
        recipe = Recipe.model_validate(there.recipe)
        before = _settings(there, recipe)
    except (ValueError, TypeError, KeyError, ArithmeticError, UsageError):
        raise WeightsError(f"{path}: cannot be resumed: its recipe is damaged") from None
    wanted = Recipe.model_validate(here.recipe)
    after = _settings(here, wanted)
    differing = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    last_step = recipe.epochs * steps_per_epoch
    is_longer = wanted.epochs > recipe.epochs
    has_ended = there.step == last_step or _has_lost_patience(there, recipe, steps_per_epoch)
    may_change = {"patience", *(_OF_LENGTH if is_longer else ())} if has_ended else set()
    if set(differing) - may_change:
        raise UsageError(_explain(path, differing, before, after, is_longer))
    if there.step > last_step:
        raise WeightsError(
            f"{path}: cannot be resumed: step {there.step} of a run that ends at {last_step}"
        )
    if not differing:
        return ""
    changes = [f"{wanted.epochs} epochs instead of {recipe.epochs}"] if is_longer else []
    if wanted.patience != recipe.patience:
        changes.append(f"patience {_shown(wanted.patience)} instead of {_shown(recipe.patience)}")
    return (
        f"made longer: {', '.join(changes)}, with the optimizer's state; the learning rate goes on "
        f"as in a run of {wanted.epochs} epochs"
    )


def _has_lost_patience(there: Progress, recipe: Recipe, steps_per_epoch: int) -> bool:
    epoch = there.step // steps_per_epoch
    best = Best(recipe.best_metric, epoch=there.best_epoch, patience=recipe.patience)
    return recipe.is_to_test(there.step, steps_per_epoch) and best.is_out_of_patience(epoch)


def _explain(
    path: Path,
    differing: List[str],
    before: Dict[str, Any],
    after: Dict[str, Any],
    is_longer: bool,
) -> str:
    told = [
        f"{key} is {_shown(before.get(key))} there and {_shown(after.get(key))} here"
        for key in differing[:_SHOWN]
    ]
    if len(differing) > _SHOWN:
        told.append(f"{len(differing) - _SHOWN} more keys differ")
    way_out = "give the flags it was started with, or start a new run from it with --pretrained"
    if is_longer and set(differing) <= _OF_LENGTH:
        way_out = "let it come to its end first; it can be made longer then"
    return f"--resume {path}: that run is another one: {'; '.join(told)}; {way_out}"


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _settings(progress: Progress, recipe: Recipe) -> Dict[str, Any]:
    """By dotted keys, all that cannot change in the course of a run."""
    devices = progress.total_batch // (recipe.batch_size * recipe.accumulate)
    values = recipe.model_dump(mode="json")
    for key in ("batch_size", "accumulate", "arch"):
        del values[key]
    values["optimizer"] = dict(values["optimizer"], lr=recipe.total_lr(devices), lr_per=None)
    found = {key: _rounded(value) for key, value in _flat(values)}
    if progress.classes:
        found["number of classes"] = len(progress.classes)
        found["classes"] = ", ".join(progress.classes)
    held_out = progress.held_out
    if held_out is not None:
        digest = hashlib.sha256(json.dumps(held_out["limits"], sort_keys=True).encode())
        found["--val-share"] = held_out["share"]
        found["images held out for validation"] = digest.hexdigest()[:8]
    return {
        **found,
        "arch": progress.arch,
        "seed": progress.seed,
        "images per update (batch_size, accumulate, devices)": progress.total_batch,
    }


def _flat(values: Dict[str, Any], prefix: str = "") -> Iterator[Tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _rounded(value: Any) -> Any:
    """Numbers that were multiplied in another order are the same number."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return [_rounded(each) for each in value] if isinstance(value, (list, tuple)) else value
