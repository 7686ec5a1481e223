from pathlib import Path

from tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[2]


def test_the_readmes_table_is_what_the_cards_say():
    module = load_script("tools/update_readme.py")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert module.with_table(readme) == readme, "run python tools/update_readme.py"
    rows = [line for line in readme.splitlines() if line.startswith("| `")]
    assert len(rows) == 14
    assert "| `resnet50` | 25.56 | 4.09 | 224 | `resnet50_fbaug_in1k` | 76.254 | 93.056 |" in rows
