from pathlib import Path

import megengine.module as M
import pytest

from tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def module():
    """The tool, with tables that are made once and networks whose weights are left undrawn."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("msra_normal_", "uniform_", "ones_", "zeros_", "fill_"):
            patch.setattr(M.init, name, lambda *args, **kwargs: None)  # only the shapes matter
        module = load_script("tools/update_readme.py")
        for name, table in module.TABLES.items():
            lines = list(table())
            patch.setitem(module.TABLES, name, lambda lines=lines: iter(lines))
        yield module


def test_the_readmes_tables_are_what_the_cards_say(module):
    assert module.with_tables(README) == README, "run python tools/update_readme.py"
    rows = [line for line in README.splitlines() if line.startswith("| ")]
    assert "| `resnet50` | 25.56 | 4.09 | 224 |" in rows
    networks, weights = (
        [row for row in rows if row.startswith(start)] for start in ("| `", "| [`")
    )
    assert (len(networks), len(weights)) == (27, 34)


def test_a_drift_shows(module):
    for old, new in (("| 76.55 |", "| 76.56 |"), ("| 25.55 |", "| 25.60 |")):
        assert old in README
        assert module.with_tables(README.replace(old, new)) == README
    with pytest.raises(ValueError, match="marks of the table weights"):
        module.with_tables(README.replace("<!-- end of weights -->", ""))
