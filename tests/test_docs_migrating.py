"""What docs/migrating.md says of this project's side: flags, keys, files, presets."""

import re

import pytest

from official.vision.classification.engine import recipe as recipes
from official.vision.classification.engine.schema import Recipe
from official.vision.classification.preprocess import PRESETS
from official.vision.classification.section import sections
from tests import documents
from tests.documents import ROOT

DOCUMENT = "docs/migrating.md"
SECTIONS = [*sections(Recipe), "preprocess"]
ROWS = [
    (row[0], row[-1])
    for table in documents.tables(DOCUMENT)
    if table[0][-1] in ("here", "in a recipe")
    for row in table[1:]
]
KEYS = recipes._dotted_keys(Recipe)
FLAG = re.compile(r"--?[A-Za-z][\w-]*")


def test_the_tables_are_found():
    assert len(ROWS) > 90
    assert all(there and here for there, here in ROWS)


@pytest.mark.parametrize("here", dict.fromkeys(here for _, here in ROWS))
def test_our_side_exists(here):
    flags = documents.flags()
    anywhere = set().union(*flags.values())
    for span in documents.spans(here):
        words = span.split()
        if words[0].endswith(".py"):
            assert (ROOT / words[0]).is_file(), span
            known = flags.get(words[0], set())
        else:
            known = anywhere
        assert {word for word in words if FLAG.fullmatch(word)} <= known, span
        key = re.fullmatch(r"([a-z_]+)\.[a-z_.]+", span.split(":")[0])
        if key and key[1] in SECTIONS:
            assert key[0] in KEYS, span


def test_the_keys_of_a_recipe_are_its_keys():
    (table,) = (rows for rows in documents.tables(DOCUMENT) if rows[0][1] == "in a recipe")
    for _, here in table[1:]:
        named = [span.split(":")[0] for span in documents.spans(here) if span[0] != "-"]
        assert set(named) <= set(KEYS) and (named or "`--" in here)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        match
        for _, here in ROWS
        for match in re.findall(r"`([a-z_.]+): ([\w.]+)`", here)
        if match[0] in KEYS
    ],
)
def test_values_of_keys_are_possible(key, value):
    changes = dict([recipes.parse_set(f"{key}={value}")])
    if key == "schedule.every":  # a cosine's
        changes["schedule.type"] = "cosine"
    recipes.override(recipes.load_recipe("default"), changes)


def test_every_flag_of_megengine_models_is_named_and_works():
    """Those of its train.py, test.py and inference.py at 78882f9."""
    theirs = "-d -a -n -b -j -p -m -i --data --arch --ngpus --save --epochs --batch-size --lr"
    theirs += " --learning-rate --momentum --weight-decay --workers --print-freq --dist-addr"
    theirs += " --dist-port --world-size --rank --model --image"
    sections = documents.read(DOCUMENT).split("\n## ")
    (section,) = [each for each in sections if each.startswith("MegEngine/Models\n")]
    known = documents.flags()
    for flag in theirs.split():
        assert f"`{flag}`" in section, flag
        assert any(flag in known[name] for name in ("train.py", "test.py", "inference.py")), flag


def test_every_flag_of_mmpretrain_is_named():
    """Those of its tools/train.py, tools/test.py and demo/image_demo.py at ee7f2e8."""
    theirs = "--work-dir --resume --amp --no-validate --auto-scale-lr --no-pin-memory --device"
    theirs += " --no-persistent-workers --cfg-options --launcher --local_rank --out --out-item"
    theirs += " --show-dir --show --interval --wait-time --tta --checkpoint"
    left = " ".join(there for there, _ in ROWS)
    for flag in theirs.split():
        assert re.search(rf"{flag}(?![\w-])", left), flag


def test_the_table_of_presets():
    (table,) = (rows for rows in documents.tables(DOCUMENT) if rows[0][1] == "order")
    libraries = {"OpenCV": "cv2", "Pillow": "pillow"}
    for name, order, resize, library, _ in table[1:]:
        preset = PRESETS[name.strip("`")]
        assert (preset.order, libraries[library]) == (order, preset.library)
        assert f"{preset.resize}, {preset.interpolation}" == resize
    assert len(table) - 1 == len(PRESETS)
