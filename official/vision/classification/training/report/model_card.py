"""A model card: what the best network of a run is, for whoever finds its file.

After Mitchell et al., "Model Cards for Model Reporting", arXiv:1810.03993.
"""

import time
from typing import Any, Dict, List

import numpy as np

from ... import __version__
from ...data.dataset import ImageDataset
from ...engine.files import write_atomically
from ...errors import UserError
from ...text import printable
from ...zoo.trained import look_up
from .summary import Run, accuracy, next_commands

MOST_CLASSES = 200  # in the table
_FIRST_LINE = "<!-- written by train.py at the end of the run; a later run replaces it -->"


def write_card(run: Run) -> None:
    """Write ``README.md`` beside ``best.safetensors``; one that somebody has written stays.

    Raises:
        UserError: when it cannot be written.
    """
    path = run.folder.path / "README.md"
    if path.exists() and not path.read_text("utf-8", "replace").startswith(_FIRST_LINE):
        path = path.with_name("MODEL_CARD.md")
    write_atomically(path, card(run).encode())


def card(run: Run) -> str:
    """The card in Markdown."""
    classes = run.data.train.classes
    parts = [
        f"{_FIRST_LINE}\n# {run.config.arch} for {len(classes)} classes",
        f"`best.safetensors`: {_what(run)}",
        "## Accuracy\n\n" + _accuracy(run),
        "## How to use it\n\n" + _use(run),
        "## Images\n\n" + _images(run),
        "## Preparation of images\n\n" + _preparation(run),
        "## Training\n\n" + _training(run),
        "## Starting weights\n\n" + _start(run),
    ]
    return "\n\n".join(parts) + "\n"


def _what(run: Run) -> str:
    if run.kept_probe:
        return (
            "a linear classifier on the features of the starting weights (a linear probe), which "
            "no epoch of training was better than."
        )
    return f"the network after epoch {run.best.epoch} of {run.config.recipe.epochs}."


def _accuracy(run: Run) -> str:
    lines = []
    if run.row:
        lines.append(f"- Validation images: {accuracy(run.row, run.prefix, len(run.data.val))}.")
        lines.append(
            f"  The epoch was chosen by these images (`best_metric: {run.best.metric}`), so that "
            "the figure is rather too high than too low."
        )
    else:
        lines.append(f"- Validation images: {run.best_top1:.3f} %.")
    if run.test and run.data.test is not None:
        lines.append(
            "- Test images, which decided nothing: "
            f"{accuracy(run.test, 'test', len(run.data.test))}."
        )
    lines.append("\nThe intervals are Wilson's (JASA 22, 1927), for other images of the same kind.")
    scores = run.test.get("test_classes") or run.row.get(f"{run.prefix}_classes")
    if scores:
        which = "test" if run.test else "validation"
        lines.append(f"\n| class | {which} images | precision (%) | recall (%) | F1 (%) |")
        lines.append("| --- | ---: | ---: | ---: | ---: |")
        lines += [
            f"| {_cell(name)} | {of['images']:g} | {of['precision']:.1f} | {of['recall']:.1f} "
            f"| {of['f1']:.1f} |"
            for name, of in scores.items()
        ]
    return "\n".join(lines)


def _use(run: Run) -> str:
    commands = "\n".join(reversed(next_commands(run)))
    python = (
        "from official.vision.classification import get_model, inference_model\n\n"
        f'model = get_model("{run.config.arch}", pretrained="{run.folder.best.name}", '
        f"num_classes={len(run.data.train.classes)})\n"
        'inference_model(model, "photo.jpg")["pred_class"]'
    )
    return f"```bash\n{commands}\n```\n\n```python\n{python}\n```"


def _images(run: Run) -> str:
    lines = [f"- {printable(line)}" for line in run.data.lines]
    train, val, test = run.data.train, run.data.val, run.data.test
    if len(train.classes) > MOST_CLASSES:
        return "\n".join([*lines, f"- {len(train.classes)} classes"])
    columns = [_counts(train), _counts(val)] + ([_counts(test)] if test is not None else [])
    heads = ["class", "training", "validation", "test"][: 1 + len(columns)]
    lines.append(f"\n| {' | '.join(heads)} |\n| --- |{' ---: |' * len(columns)}")
    for name, *counts in zip(train.classes, *columns):
        lines.append(f"| {_cell(name)} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def _counts(images: ImageDataset) -> List[int]:
    counts = np.bincount(images.labels, minlength=len(images.classes))
    return [int(count) for count in counts]


def _preparation(run: Run) -> str:
    values: Dict[str, Any] = run.config.recipe.preprocess.to_dict()
    told = "\n".join(f"- {name}: {value}" for name, value in values.items())
    return f"The scripts here do this by themselves (values from 0 to 255):\n\n{told}"


def _training(run: Run) -> str:
    config = run.config
    optimizer = config.recipe.optimizer
    return "\n".join(
        [
            f"- {config.recipe.epochs} epochs at most, batch {config.recipe.batch_size}, "
            f"{optimizer.type} at {optimizer.lr:g}; every key is in `recipe.yaml`",
            f"- seed {config.seed}, {config.topology.processes} process(es) on {run.device}",
            f"- ended {time.strftime('%Y-%m-%d %H:%M')}, version {__version__} of megengine-resnet",
        ]
    )


def _start(run: Run) -> str:
    if run.config.weights is None:
        return "None: training started from random weights."
    try:
        source = look_up(run.config.weights, say=False)
    except UserError:  # the file of a run that went on may have gone
        return f"`{_cell(str(run.config.weights.model))}`, which is not there any more."
    lines = [f"`{_cell(source.config.source)}`"]
    if run.started_from:
        lines.append(f"({printable(run.started_from)})")
    if source.row is not None:
        row = source.row
        lines.append(f"- published by {row.source}: {row.url}")
        lines.append(f"- licence: {row.licence}; trained on {row.dataset}")
    else:
        lines.append(
            "- licence: the file does not say; that of its publisher holds for this network, too"
        )
    return "\n".join([lines[0], "", *lines[1:]])


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|").replace("`", "'")
