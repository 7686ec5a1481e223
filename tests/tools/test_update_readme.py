import re
from pathlib import Path

import megengine.module as M
import pytest

from official.vision.classification.zoo import ARCHS, ROWS
from tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[2]
READMES = {name: (ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh.md")}


@pytest.fixture(scope="module")
def module():
    """The tool; of the networks only the shapes matter, so their weights are left undrawn."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("msra_normal_", "uniform_", "ones_", "zeros_", "fill_"):
            patch.setattr(M.init, name, lambda *args, **kwargs: None)
        module = load_script("tools/update_readme.py")
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
        "run python tools/update_readme.py"
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
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert module.main() == 0
    assert {name: (tmp_path / name).read_text("utf-8") for name in READMES} == READMES
