"""Where the small files of other frameworks lie, and what is in them.

``manifest.json`` gives every file's entries as ``seeded.of_types`` takes them: ``[type, shape]`` by
name, or ``[type, shape, value]`` for a value that is not drawn.
"""

import json
from pathlib import Path
from typing import Dict, List, Mapping, Sequence

FOLDER = Path(__file__).resolve().parent / "files"
MANIFEST = FOLDER / "manifest.json"


def read_manifest() -> Dict[str, Dict[str, List]]:
    """Entries by name by file name."""
    return json.loads(MANIFEST.read_text())


def record(files: Mapping[str, Mapping[str, Sequence]]) -> None:
    """Add files to the manifest, or say anew what is in them."""
    manifest = read_manifest() if MANIFEST.exists() else {}
    manifest.update(files)
    blocks = []
    for file, entries in sorted(manifest.items()):
        lines = [f"    {json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items()]
        blocks.append(f"  {json.dumps(file)}: {{\n" + ",\n".join(lines) + "\n  }")
    MANIFEST.write_text("{\n" + ",\n".join(blocks) + "\n}\n")
