import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_readmes_table_is_what_the_cards_say():
    path = ROOT / "tools" / "update_readme.py"
    spec = importlib.util.spec_from_file_location("update_readme", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert module.with_table(readme) == readme, "run python tools/update_readme.py"
    rows = [line for line in readme.splitlines() if line.startswith("| `")]
    assert len(rows) == 14
    assert "| `resnet50` | 25.56 | 4.09 | 224 | `resnet50_fbaug_in1k` | 76.254 | 93.056 |" in rows
