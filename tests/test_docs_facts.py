"""What the documents say of keys, limits and recipes is what the code has."""

import importlib
import io
import re
from contextlib import redirect_stdout
from fnmatch import fnmatch

import pytest
import yaml

from official.vision.classification.data import image
from official.vision.classification.distributed import secret
from official.vision.classification.engine import recipe as recipes
from official.vision.classification.engine.schema import Recipe
from official.vision.classification.errors import UsageError
from official.vision.classification.preprocess import Preprocess
from official.vision.classification.readers import _READERS, STATE_DICT_ENTRIES
from official.vision.classification.section import sections
from official.vision.classification.zoo import ROWS
from tests import documents
from tests.documents import ROOT

RECIPES, SAFETY, REPRODUCING = (
    f"docs/{name}.md" for name in ("recipes", "security", "reproducing")
)
READERS = "official.vision.classification.readers"


def column_headed(document, *heads):
    """The rows of all tables of a document that begin with these heads."""
    found = [rows[1:] for rows in documents.tables(document) if tuple(rows[0]) == heads]
    assert found, f"{document} has no such table"
    return [row for rows in found for row in rows]


def defaults(section, prefix=""):
    """Dotted key -> default, as YAML has it; of sections, only of those that may be off."""
    inner = sections(section)
    for name, field in section.model_fields.items():
        if name in inner:
            yield from defaults(inner[name], f"{prefix}{name}.")
        if name not in inner or field.default is None:
            value = "required" if field.is_required() else field.default
            yield prefix + name, list(value) if isinstance(value, tuple) else value


def test_every_key_of_a_recipe_is_there_with_its_default():
    expected = dict(defaults(Recipe))
    del expected["preprocess"]
    expected["amp"] = False
    for name, value in Preprocess().to_dict().items():
        expected[f"preprocess.{name}"] = list(value) if isinstance(value, tuple) else value
    rows = column_headed(RECIPES, "key", "values", "default", "meaning")
    shown = {key.strip("`"): yaml.safe_load(default.strip("`")) for key, _, default, _ in rows}
    assert len(shown) == len(rows), "a key is there twice"
    assert shown == expected
    inner = set(sections(Recipe)) | {"preprocess"}
    assert set(recipes._dotted_keys(Recipe)) == set(shown) | inner


@pytest.mark.parametrize(("change", "message"), column_headed(RECIPES, "`--set`", "message"))
def test_what_is_refused_is_refused_in_these_words(change, message):
    with pytest.raises(UsageError) as error:
        changes = dict([recipes.parse_set(change.strip("`"))])
        recipes.override(recipes.load_recipe("shapes"), changes)
    assert re.sub(r"^(flags|--set \S+): ", "", str(error.value)) == message


def test_the_learning_rates_of_the_text():
    """0.1 for 256: eight devices of 32 images, one of them, and one that accumulates."""
    text = " ".join(documents.prose(RECIPES).split())
    assert "eight devices train at 0.1 and one at 0.0125" in text
    recipe = recipes.load_recipe("resnet50_8xb32_in1k")
    assert [recipe.total_lr(devices) for devices in (8, 1)] == pytest.approx([0.1, 0.0125])
    accumulating = recipes.override(recipe, {"accumulate": 8})
    assert accumulating.total_lr(1) == pytest.approx(0.1)
    per_device = recipes.override(recipe, {"optimizer.lr_per": "device", "accumulate": 3})
    assert per_device.total_lr(2) == pytest.approx(0.1 * 2 * 3)


def test_flags_that_stand_for_keys():
    for _, key in column_headed(RECIPES, "flag", "key"):
        for span in documents.spans(key):
            assert span in recipes._dotted_keys(Recipe)


@pytest.mark.parametrize(
    ("limit", "constant"), [row[1:] for row in column_headed(SAFETY, "what", "at most", "constant")]
)
def test_limits_are_those_of_the_readers(limit, constant):
    name, file = documents.spans(constant)
    path = file[: -len(".py")].replace("readers/", "").replace("__init__", "")
    stem = f".{path}".replace("/", ".") if path else ""
    assert getattr(importlib.import_module(READERS + stem), name) == int(limit.replace(",", ""))


def test_the_tests_that_are_named_are_there():
    """Of docs/security.md, whose last column is what its promises rest on."""
    text = documents.read(SAFETY)
    rows = [line for line in text.splitlines() if line.startswith("| ") and "test" in line]
    names = [name for line in rows for name in re.findall(r"`([^`]+)`", line.split(" | ")[-1])]
    assert len(names) > 20
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_other_limits_of_the_text():
    for name, value in (("512 MiB", image.MAX_BYTES), ("1 MiB", secret.MOST_BYTES)):
        assert name in documents.read(SAFETY) and value == int(name.split()[0]) << 20


def test_every_reader_is_named():
    rows = column_headed(SAFETY, "format", "reader", "what is accepted")
    named = {documents.spans(reader)[0] for _, reader, _ in rows}
    assert named == {f"{reader.__name__.rsplit('.', 1)[1]}.py" for reader in _READERS.values()}
    accepted = next(what for _, reader, what in rows if "torch_zip" in reader)
    assert tuple(documents.spans(accepted)) == STATE_DICT_ENTRIES


def test_the_example_of_a_refused_file_prints_what_is_shown(tmp_path, monkeypatch):
    code, shown = (
        next(block for block in documents.blocks(SAFETY) if block.language == language)
        for language in ("python", "text")
    )
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(code.text, SAFETY, "exec"), {"__name__": "example"})
    assert printed.getvalue() == shown.text


def test_every_recipe_that_others_publish_is_in_one_row_of_its_table():
    rows = column_headed(REPRODUCING, "recipes", "from", "devices", "known differences")
    patterns = {
        pattern: devices
        for row in rows
        for pattern in documents.spans(row[0])
        for devices in [row[2]]
    }
    names = {path.stem for path in (ROOT / "official" / "recipes").glob("*.yaml")}
    for name in names - {"default", "default_fbaug", "fine_tune", "shapes"}:
        matching = [pattern for pattern in patterns if fnmatch(name, pattern)]
        assert len(matching) == 1, f"{name}: {matching}"
        if "_8x" in name:
            assert patterns[matching[0]] == "8"
    assert all(any(fnmatch(name, pattern) for name in names) for pattern in patterns)
    assert {row.recipe for row in ROWS if row.recipe} <= names


def test_the_layout_is_that_of_the_checkout():
    (layout,) = [b.text for b in documents.blocks("CONTRIBUTING.md") if b.language == "text"]
    folder = ROOT
    for line in layout.splitlines():
        name = re.match(r"( *)(\S+)", line)
        path = (folder if name[1] else ROOT) / name[2]
        assert path.exists(), line
        if not name[1] and path.is_dir():
            folder = path
