import re
from pathlib import Path

import pytest

from official.vision.classification.engine.recipe import _dotted_keys, load_recipe, override
from official.vision.classification.errors import UsageError
from official.vision.classification.zoo import ARCHS, ROWS, default_row
from tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[2]
READMES = {name: (ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh.md")}
KEYS = (ROOT / "docs" / "recipes.md").read_text("utf-8")
WEIGHTS = (ROOT / "docs" / "weights.md").read_text("utf-8")
NETWORKS = (ROOT / "docs" / "networks.md").read_text("utf-8")
NETWORKS_ZH = (ROOT / "docs" / "zh" / "networks.md").read_text("utf-8")


@pytest.fixture(scope="module")
def module():
    """The tool, which makes each table once."""
    with pytest.MonkeyPatch.context() as patch:
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
    networks = table(readme, "networks")
    assert ["`resnet50`", "25.56", "4.09", "224"] in networks
    assert len(networks) == len(ARCHS)


def table(document, name):
    """The cells of a table between its marks, without its head."""
    text = document.split(f"<!-- {name} -->")[1].split(f"<!-- end of {name} -->")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


@pytest.mark.parametrize("name", READMES)
def test_the_best_three_of_every_network_are_in_the_readmes(name):
    found = {}
    for arch, dataset, default, best in table(READMES[name], "weights"):
        assert (arch, dataset) not in found
        found[arch.strip("`"), dataset] = (default, best.split("; "))
    assert {*found} == {(row.arch, row.dataset) for row in ROWS}
    for (arch, dataset), (default, best) in found.items():
        rows = [row for row in ROWS if (row.arch, row.dataset) == (arch, dataset)]
        rows.sort(key=lambda row: row.top1 or 0, reverse=True)
        assert len(best) == min(3, len(rows))
        first = default_row(arch)
        words = [(default, first)] if first.dataset == dataset else []
        assert bool(default) == bool(words)
        for text, row in words + list(zip(best, rows)):
            assert text.startswith(f"`{row.name}`")
            assert ("†" in text) == ("NC" in row.licence)
            figures = [float(word) for word in re.findall(r" (\d+\.\d+)", text)]
            assert figures == ([] if row.top1 is None else [row.top1])
        for text, row in zip(best, rows):
            assert text.endswith(f", {row.preprocess.crop}")


def test_all_weights_are_in_their_document(module):
    written = module.between_marks(WEIGHTS, "weights", module.all_weights())
    assert written == WEIGHTS, "run python tools/update_tables.py"
    lines = table(WEIGHTS, "weights")
    assert len(lines) == sum(len(row.results) for row in ROWS)
    first = [line for line in lines if line[0].startswith("[")]
    assert [line[0].split("`")[1] for line in first] == [row.name for row in ROWS]
    for line, row in zip(first, ROWS):
        assert f"]({row.url})" in line[0] or f"](../{row.url})" in line[0]  # seen from docs/
        assert ("*" in line[0]) == (default_row(row.arch) == row)
        assert line[1:3] == [f"`{row.arch}`", row.dataset]
        assert line[5] == str(row.preprocess.crop) and line[-3:-1] == [row.licence, row.source]
        shown = [None if cell == "" else float(cell) for cell in line[7:14]]
        others = [row.others.get(key) for key in ("real", "v2", "a", "r", "sketch")]
        assert shown == [row.top1, row.top5, *others]
        assert (line[-1] == "not stated") == (row.digest_prefix == "")
        assert row.digest_prefix[:8] in line[-1]
        assert ("no more" in line[-1]) == (row.digest_is_sha256 and 0 < len(row.digest_prefix) < 64)
    notes = re.findall(r"^\[\d+\] (.*)<br>$", WEIGHTS, re.MULTILINE)
    assert notes == list(dict.fromkeys(row.note for row in ROWS if row.note))


def test_every_network_is_in_one_section_of_its_document(module):
    for document in (NETWORKS, NETWORKS_ZH):
        assert module.with_names(document) == document, "run python tools/update_tables.py"
    listed = [
        (name, section.splitlines()[0])
        for section in NETWORKS.split("\n## ")[1:]
        for names in re.findall(r"<!-- networks: .* -->\n([^<]*)<", section)
        for name in re.findall(r"`(\w+)`", names)
    ]
    assert sorted(name for name, _ in listed) == sorted(ARCHS)
    assert dict(listed)["resnet26"] == "ResNet" and dict(listed)["resnet26t"] == "ResNet-D"
    assert dict(listed)["resnet18_cifar"] == "For CIFAR, from ImageNet's"
    for old, new in ((r"resnet\d+ ", r"resnet1\d+ "), ("wide_resnet.*", ".*")):
        with pytest.raises(ValueError, match="docs/networks.md: no section, or more than one, has"):
            module.with_names(NETWORKS.replace(f"networks: {old}", f"networks: {new}"))


def test_both_languages_have_the_same_figures():
    for name in ("networks", "weights"):
        english, chinese = (table(text, name) for text in READMES.values())
        assert english == chinese


def test_a_drift_shows(module):
    name, readme = next(iter(READMES.items()))
    for old, new in ((" 81.24,", " 81.25,"), ("| 25.55 |", "| 25.60 |")):
        assert old in readme
        drifted = readme.replace(old, new)
        assert module.with_tables(drifted, module.LANGUAGES[name]) == readme
    with pytest.raises(ValueError, match="marks of the table weights"):
        module.with_tables(readme.replace("<!-- end of weights -->", ""), module.LANGUAGES[name])


def test_both_files_are_written(module, tmp_path, monkeypatch):
    for name in READMES:
        (tmp_path / name).write_text(READMES[name].replace(" 81.24,", " 0,"), "utf-8")
    (tmp_path / "docs" / "zh").mkdir(parents=True)
    (tmp_path / module.WEIGHTS).write_text(WEIGHTS.replace("| 81.24 |", "| 0 |"), "utf-8")
    for name, text in ((module.NETWORKS, NETWORKS), (module.NETWORKS_ZH, NETWORKS_ZH)):
        (tmp_path / name).write_text(text.replace("`resnet152`, ", ""), "utf-8")
    (tmp_path / module.RECIPES).write_text(KEYS.replace("| `0.9` |", "| `0.8` |"), "utf-8")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert module.main([]) == 0
    assert {name: (tmp_path / name).read_text("utf-8") for name in READMES} == READMES
    assert (tmp_path / module.RECIPES).read_text("utf-8") == KEYS
    assert (tmp_path / module.WEIGHTS).read_text("utf-8") == WEIGHTS
    assert (tmp_path / module.NETWORKS).read_text("utf-8") == NETWORKS
    assert (tmp_path / module.NETWORKS_ZH).read_text("utf-8") == NETWORKS_ZH


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
