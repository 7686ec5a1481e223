"""The commands of docs/datasets.md: they are valid, and its example of a list is one."""

import re
import shlex
from pathlib import Path

import pytest

from official.vision.classification.data.folder import EXTENSIONS, load_split
from tests.scripts import load_script

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "datasets.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_valid_flags(command):
    python, name, *words = shlex.split(command)
    script = load_script(name)
    assert python == "python"
    args = script.flags.parse(script.parser(), words)
    expected = words[0] if name == "tools/prepare_data.py" else words[words.index("--data") + 1]
    assert args.data == expected
    if name == "train.py":
        assert script.recipe_of(args).arch == "resnet20_cifar"


def test_every_script_is_shown():
    assert {command.split()[1] for command in COMMANDS} == {
        *("train.py", "test.py", "tools/check_data.py", "tools/prepare_data.py")
    }


def test_the_list_is_one(tmp_path):
    (text,) = re.findall(r"^```csv\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "list.csv").write_text(text)
    train, val = (load_split(tmp_path / "list.csv", split) for split in ("train", "val"))
    assert train.classes == val.classes == ("cat", "dog")
    assert train.labels.tolist() == [0, 1] and val.labels.tolist() == [0]
    assert val.paths == (f"{tmp_path}/photos/3.jpg",)


def test_the_suffixes_of_images_are_all_named():
    assert all(f"`{suffix}`" in TEXT for suffix in EXTENSIONS)
