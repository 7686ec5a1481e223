"""Every command and snippet of README.md is run as it is written there, on a smaller scale."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import megengine as mge
import numpy as np
import pytest

from official.vision.classification.resnet.model import resnet18, resnet50
from official.vision.classification.zoo import ARCHS, default_card, load
from official.vision.classification.zoo.classes import class_names
from tests.scripts import load_script
from tests.servers import Server, whole
from tests.tools.test_convert_weights import torch_file

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if line]
ENVIRONMENT = [line for line in COMMANDS if not line.startswith("python ")]
IMAGENET_TRAINING = [line for line in COMMANDS if line.startswith("python train.py --data /data/")]
RUN = [line for line in COMMANDS if line not in [*ENVIRONMENT, *IMAGENET_TRAINING]]


def test_environment_commands_are_make_targets_that_ci_runs():
    assert ENVIRONMENT == ["make demo", "make test", "make setup", "source .venv/bin/activate"]
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "setup"):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    ci = (ROOT / ".ci" / "run").read_text()
    assert re.search(r"^make .*\btest\b.*\bdemo\b", ci, flags=re.MULTILINE)


@pytest.mark.parametrize("command", IMAGENET_TRAINING)
def test_commands_for_gpus_have_valid_flags(command):
    """They are not run: they want ImageNet and up to sixteen GPUs."""
    script = load_script("train.py")
    args = script.flags.parse(script.parser(), shlex.split(command)[2:])
    assert script.recipe_of(args).arch == "resnet50"
    assert script.flags.topology(args).nodes == (2 if "--world-size" in command else 1)


@pytest.fixture()
def place(tmp_path):
    """A folder that looks like a checkout, with an ImageNet of two classes and a photograph."""
    for name in ("train.py", "test.py", "inference.py", "tools", "official"):
        (tmp_path / name).symlink_to(ROOT / name)
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (300, 280, 3), np.uint8)
    for wnid in ("n01440764", "n02123394"):
        (tmp_path / "imagenet" / "val" / wnid).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "imagenet" / "val" / wnid / "0.JPEG"), picture)
    cv2.imwrite(str(tmp_path / "cat.jpg"), picture)
    state = resnet50().state_dict()
    named = {f"{'head' if name[:2] == 'fc' else 'backbone'}.{name}": state[name] for name in state}
    (tmp_path / "resnet50.pth").write_bytes(torch_file(named))
    return tmp_path


def smaller(command):
    """The command in less time: fewer pictures, one epoch of small batches."""
    words = command.replace("/data/imagenet", "imagenet").replace("--train 1500", "--train 40")
    words = words.replace("--val 500", "--val 20").replace("--epochs 5", "")
    more = " --epochs 1 --batch-size 8" if words.startswith("python train.py") else ""
    return [sys.executable, *shlex.split(words + more)[1:]]


def test_every_other_command_works_from_top_to_bottom(place, monkeypatch):
    monkeypatch.setenv("MGE_HOME", str(place / "cache"))
    with Server() as server:
        monkeypatch.setenv("RESNET_WEIGHTS_MIRROR", server.url)
        for build in (resnet18, resnet50):
            card = default_card(build.__name__)
            path = place / f"{card.arch}.pkl"
            mge.save(build().state_dict(), str(path))
            server.answers["/models/weights/" + card.url.rsplit("/", 1)[1]] = whole(
                path.read_bytes()
            )
        assert len(RUN) == 18
        for command in RUN:
            done = subprocess.run(
                smaller(command), cwd=place, capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, f"{command}\n{done.stderr}"
            assert "Traceback" not in done.stderr
    assert (place / "result.json").exists()
    for name in ("star.png", "heat.png", "answers.csv", "features.npz"):
        assert (place / name).exists()
    assert (place / "output" / "resnet20_cifar" / "curves.png").exists()
    assert (place / "output" / "resnet18" / "best.safetensors").exists()


def test_the_snippet_for_a_checkout(place, monkeypatch):
    """With weights that are not the published ones, whose digests nobody else's file has."""
    (snippet,) = [text for text in blocks("python") if "from official" in text]
    files = {}
    for arch, classes in (("resnet50", 1000), ("resnet18_cifar", 10)):
        files[arch] = place / f"{arch}.pkl"
        mge.save(ARCHS[arch](num_classes=classes).state_dict(), str(files[arch]))
    monkeypatch.setattr(load, "fetch", lambda card, *args, **kwargs: files[card.arch])
    monkeypatch.chdir(place)
    names = {"images": mge.Tensor(np.zeros((2, 3, 32, 32), np.float32))}
    exec(snippet, names)
    assert names["answer"]["pred_class"] in class_names("ImageNet-1k").values()
    assert names["feature"].shape == (2, 512)
