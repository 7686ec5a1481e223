"""timm's and torchvision's ResNets, read from two tables in ``official/assets``.

There are too many rows to be written as calls: ``published_weights.txt`` has a line per file, and
``published_results.txt`` one per file and size of its images. Columns are separated by blanks.
"""

import re
from pathlib import Path
from typing import Dict, List, Tuple

from ...preprocess import IMAGENET_RGB_MEAN, IMAGENET_RGB_STD, Preprocess
from .row import Result, Row

_ASSETS = Path(__file__).resolve().parents[4] / "assets"
_HALF = (127.5, 127.5, 127.5)
# Mean and standard deviation.
_VALUES = {"imagenet": (IMAGENET_RGB_MEAN, IMAGENET_RGB_STD), "half": (_HALF, _HALF)}
OTHERS = ("real", "v2", "a", "r", "sketch")

# Those whose training their publisher states, and a recipe can: what the others' lack is said in
# docs/recipes.md.
_HAS_RECIPE = re.compile(r"res\w+\.tv_in1k|\w+\.tv2_in1k|\w+\.a[123]_in1k")

# What a name's tag, the part behind the dot, begins with -> who trained the weights, and how.
_NOTES = {
    "gluon": "Trained by GluonCV.",
    "fb_ssl": "Trained by Facebook: YFCC100M (semi-supervised, arXiv:1905.00546), then "
    "ImageNet-1k.",
    "fb_swsl": "Trained by Facebook: IG-1B (semi-weakly supervised, arXiv:1905.00546), then "
    "ImageNet-1k.",
    "fb_wsl": "Trained by Facebook: IG-1B hashtags (weakly supervised, arXiv:1805.00932), then "
    "ImageNet-1k.",
}


def read_tables() -> Tuple[Row, ...]:
    """A row for each line of ``published_weights.txt``."""
    results: Dict[str, List[Dict[str, str]]] = {}
    for line in _lines("published_results.txt"):
        results.setdefault(line["name"], []).append(line)
    return tuple(_row(line, results[line["name"]]) for line in _lines("published_weights.txt"))


def _lines(name: str) -> List[Dict[str, str]]:
    """A table's lines by the names in its first."""
    text = (_ASSETS / name).read_text(encoding="utf-8")
    head, *rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return [dict(zip(head, row)) for row in rows]


def _row(line: Dict[str, str], results: List[Dict[str, str]]) -> Row:
    first, *more = (_result(line, each) for each in results)
    tag = line["name"].split(".")[1]
    note = next((note for start, note in _NOTES.items() if tag.startswith(start)), "")
    if first.top1 is None:
        note = f"{note} No accuracy is published.".strip()
    return Row(
        name=line["name"],
        arch=line["network"],
        dataset="ImageNet-1k",
        num_classes=1000,
        params=int(line["params"]),
        macs=first.macs,
        top1=first.top1,
        top5=first.top5,
        url=line["url"],
        digest_prefix=line["digits"].replace("-", ""),
        digest_is_sha256=True,
        licence=line["licence"],
        source=line["publisher"],
        preprocess=first.preprocess,
        recipe=line["name"] if _HAS_RECIPE.fullmatch(line["name"]) else None,
        note=note,
        others=first.others,
        more=tuple(more),
    )


def _result(line: Dict[str, str], measured: Dict[str, str]) -> Result:
    mean, std = _VALUES[line["values"]]
    preprocess = Preprocess(
        "RGB",
        mean,
        std,
        resize=int(measured["resize"]),
        crop=int(measured["px"]),
        interpolation=line["interpolation"],
        library="pillow",
    )
    columns = ("top1", "top5", *OTHERS)
    found = {name: float(measured[name]) for name in columns if measured[name] != "-"}
    top1, top5 = found.pop("top1", None), found.pop("top5", None)
    return Result(preprocess, float(f"{measured['gmacs']}e9"), top1, top5, found)
