"""Importing a script by its path: ``import test`` would find Python's own package."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "official.vision.classification"
IN_PACKAGE = ("train.py", "test.py", "inference.py")  # the files at the root only call them


def load_script(name: str) -> ModuleType:
    """A fresh module from a path relative to the repository's root."""
    module_name, path = f"script_{Path(name).stem}", ROOT / name
    if name in IN_PACKAGE:
        module_name, path = f"{PACKAGE}.{path.stem}", ROOT.joinpath(*PACKAGE.split("."), name)
    spec = importlib.util.spec_from_file_location(module_name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
