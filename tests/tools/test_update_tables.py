import re
from pathlib import Path

import megengine.module as M
import pytest

from official.vision.classification.engine.recipe import _dotted_keys, load_recipe, override
from official.vision.classification.errors import UsageError
from official.vision.classification.zoo import ARCHS, ROWS
from tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[2]
READMES = {name: (ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh.md")}
KEYS = (ROOT / "docs" / "recipes.md").read_text("utf-8")


@pytest.fixture(scope="module")
def module():
    """The tool; of the networks only the shapes matter, so their weights are left undrawn."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("msra_normal_", "uniform_", "ones_", "zeros_", "fill_"):
            patch.setattr(M.init, name, lambda *args, **kwargs: None)
        module = load_script("tools/update_tables.py")
        made = {}
        for name, table in module.TABLES.items():
            for language in module.LANGUAGES.values():
                made[name, language.networks] = list(table(language))
            patch.setitem(
                module.TABLES, name, lambda language, name=name: made[name, language.networks]
            )
        yield module


@pytest.mark.parametrize("name", READMES)
def test_the_tables_are_what_the_cards_say(module, name):
    readme = READMES[name]
    assert module.with_tables(readme, module.LANGUAGES[name]) == readme, (
        "run python tools/update_tables.py"
    )
    rows = [line for line in readme.splitlines() if line.startswith("| ")]
    assert "| `resnet50` | 25.56 | 4.09 | 224 |" in rows
    networks, weights = (
        [row for row in rows if row.startswith(start)] for start in ("| `", "| [`")
    )
    assert (len(networks), len(weights)) == (len(ARCHS), len(ROWS))


def test_both_languages_have_the_same_figures_and_notes():
    english, chinese = (
        [line for line in text.splitlines() if re.match(r"\| \[?`", line)]
        for text in READMES.values()
    )
    assert english == chinese
    notes = [re.findall(r"^\[(\d)\] (.*)<br>$", text, re.MULTILINE) for text in READMES.values()]
    assert [number for number, _ in notes[0]] == [number for number, _ in notes[1]]
    for (_, english_note), (_, chinese_note) in zip(*notes):
        assert re.search("[\u4e00-\u9fff]", chinese_note)
        figures = [re.findall(r"\d+(?:\.\d+)?", note) for note in (english_note, chinese_note)]
        assert sorted(figures[0]) == sorted(figures[1])


def test_a_drift_shows(module):
    name, readme = next(iter(READMES.items()))
    for old, new in (("| 76.55 |", "| 76.56 |"), ("| 25.55 |", "| 25.60 |")):
        assert old in readme
        drifted = readme.replace(old, new)
        assert module.with_tables(drifted, module.LANGUAGES[name]) == readme
    with pytest.raises(ValueError, match="marks of the table weights"):
        module.with_tables(readme.replace("<!-- end of weights -->", ""), module.LANGUAGES[name])


def test_both_files_are_written(module, tmp_path, monkeypatch):
    for name in READMES:
        (tmp_path / name).write_text(READMES[name].replace("| 76.55 |", "| 0 |"), "utf-8")
    (tmp_path / "docs").mkdir()
    (tmp_path / module.RECIPES).write_text(KEYS.replace("| `0.9` |", "| `0.8` |"), "utf-8")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert module.main([]) == 0
    assert {name: (tmp_path / name).read_text("utf-8") for name in READMES} == READMES
    assert (tmp_path / module.RECIPES).read_text("utf-8") == KEYS


def test_help_writes_nothing(module, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "ROOT", tmp_path / "missing")
    with pytest.raises(SystemExit) as caught:
        module.main(["--help"])
    assert caught.value.code == 0 and "Write the tables" in capsys.readouterr().out


def test_the_tables_of_keys_are_what_the_schema_says(module):
    assert module.with_keys(KEYS) == KEYS, "run python tools/update_tables.py"
    for old, new in (
        ("| `0.9999` |", "| `0.9` |"),
        (" or `adamw` |", " |"),
        ("fine-tuning", "x"),
    ):
        assert old in KEYS
        assert module.with_keys(KEYS.replace(old, new)) == KEYS
    with pytest.raises(ValueError, match="marks of the table keys of ema"):
        module.with_keys(KEYS.replace("<!-- keys of ema -->", ""))


def test_every_key_has_a_row(module):
    rows = re.findall(r"^\| `([\w.]+)` \| (.+) \| (.+) \| (.+) \|$", KEYS, re.MULTILINE)
    assert len(rows) == len({key for key, *_ in rows})
    inner = set(module.sections(module.Recipe)) - {"ema", "amp"}  # these two may be off
    assert {key for key, *_ in rows} == {*_dotted_keys(module.Recipe)} - inner - {"preprocess"}
    assert all(len(meaning) > 8 and values and default for _, values, default, meaning in rows)


ROWS_OF_KEYS = [
    match.groups()
    for match in re.finditer(r"^\| `([\w.]+)` \| (.+) \| .+ \| (.+) \|$", KEYS, re.MULTILINE)
]


def with_key(key, value, meaning):
    """A recipe in which the key has that value, and its section a kind that has the key."""
    changes = {"schedule.warmup_epochs": 0, "schedule.warmup_start": 0.1, key: value}
    of = re.match("of `([a-z]+)`", meaning)
    section = key.rpartition(".")[0]
    if of:
        changes[f"{section}.{'crop' if section == 'augment' else 'type'}"] = of[1]
    if key == "preprocess.crop" or key == "preprocess.resize":
        changes["preprocess.resize"] = value
    return override(load_recipe("default"), changes)


@pytest.mark.parametrize(("key", "values", "meaning"), ROWS_OF_KEYS)
def test_the_values_of_a_table_are_those_that_are_taken(key, values, meaning):
    for word in re.findall("`([^`]+)`", values):
        with_key(key, {"null": None, "true": True, "false": False}.get(word, word), meaning)
    for nonsense in ("nonsense", [None], {"nonsense": 1}):
        with pytest.raises(UsageError):
            with_key(key, nonsense, meaning)
    tiny = 1 if "integer" in values else 1e-9
    for limit, number in re.findall("(from|above|below|to) ([0-9]+)", values):
        if "two" in values or "three" in values or "rising" in values:
            continue
        number = int(number)
        inside, outside = {
            "from": (number, number - tiny),
            "above": (number + tiny, number),
            "below": (number - tiny, number),
            "to": (number, number + tiny),
        }[limit]
        if key not in ("augment.rand_augment.levels", "optimizer.lr"):  # at least another key's
            with_key(key, inside, meaning)
        with pytest.raises(UsageError):
            with_key(key, outside, meaning)
