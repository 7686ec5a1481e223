"""Importing a script by its path: ``import test`` would find Python's own package."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "official.vision.classification"
# What the files at the root and in tools/ only call, where it is not found by the same name.
COMMANDS = {
    path: f"commands.{Path(path).stem}"
    for path in (
        "tools/check_data.py",
        "tools/compare_runs.py",
        "tools/convert_weights.py",
        "tools/export.py",
        "tools/prepare_data.py",
        "tools/serve.py",
    )
}
IN_PACKAGE = {"train.py": "train", "test.py": "test", "inference.py": "inference", **COMMANDS}


def load_script(name: str) -> ModuleType:
    """A fresh module from a path relative to the repository's root."""
    module_name, path = f"script_{Path(name).stem}", ROOT / name
    if name in IN_PACKAGE:
        module_name = f"{PACKAGE}.{IN_PACKAGE[name]}"
        path = ROOT.joinpath(*module_name.split(".")).with_suffix(".py")
    spec = importlib.util.spec_from_file_location(module_name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
