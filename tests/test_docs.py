"""Every command of the documents is run, or parsed by its script; every link leads somewhere."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import megengine as mge
import numpy as np
import pytest
import yaml
from megengine.hub.hub import _get_megengine_home

from official.vision.classification.errors import UserError
from official.vision.classification.resnet.model import resnet18, resnet50
from official.vision.classification.zoo import ARCHS, default_row, trained
from tests import documents
from tests.documents import DOCUMENTS, ROOT, TRANSLATIONS
from tests.scripts import load_script
from tests.servers import Server, whole
from tests.tools.test_convert_weights import torch_file

# Documents that a test of their own is about; here their commands are parsed.
ELSEWHERE = {"docs/datasets.md": "test_datasets_doc.py"}
# Documents whose commands go on with what those of another have made.
CONTINUATIONS = {"docs/testing.md": "README.md"}

LANGUAGES = {"bash", "python", "yaml", "json", "csv", "text", "cpp"}
COMMANDS = [
    (document, command)
    for document in DOCUMENTS
    if document not in TRANSLATIONS
    for block in documents.blocks(document)
    if block.language == "bash" and block.mark != "not checked"
    for command in block.commands
]
MODULES = ("pytest", "ruff", "pip", "venv")


def is_run(document, block):
    named = document in ELSEWHERE or document in TRANSLATIONS
    return block.language in ("bash", "python") and not block.mark and not named


def without_variables(command):
    """The words of a command without the ``NAME=value`` before it."""
    words = shlex.split(command)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return words


def check(command):
    """Fail unless the command names a script with flags that it has, or another thing there is."""
    words = without_variables(command)
    program, *words = words
    if program.endswith("python") and words[0] == "-m":
        assert words[1] in MODULES, f"{command}: is {words[1]} a module that users have?"
    elif program.endswith("python"):
        script, *words = words
        if program.startswith(".venv-torch"):  # imports PyTorch, so that its text has to do
            text = (ROOT / script).read_text("utf-8")
            flags = [word for word in words if word.startswith("-")]
            assert [flag for flag in flags if f'add_argument("{flag}"' not in text] == [], command
            return
        if script not in documents.scripts():  # one without flags
            assert (ROOT / script).is_file() and not words, command
            return
        _, args = documents.parse(script, words)
        if script == "train.py" and args is not None:
            load_script(script).recipe_of(args)
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text("utf-8")
        for target in words:
            assert "=" in target or re.search(rf"^{target}:", makefile, re.MULTILINE), command
    elif program in ("source", "bash"):
        assert words[0] == ".venv/bin/activate" or (ROOT / words[0]).is_file(), command
    else:
        assert program in ("pip", "git", "cd"), f"{command}: which program is that?"


@pytest.mark.parametrize(("document", "command"), COMMANDS)
def test_a_command_is_valid(document, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in documents.blocks(document):
        if block.mark == "file":
            Path(block.note).write_text(block.text, "utf-8")
    check(command)


@pytest.mark.parametrize(
    "command",
    [
        "python train.py --dataa x",
        "python train.py -c no_such_recipe",
        "python train.py --set optimizer.nestrov=true",
        "python tools/make_shapes.py out --trian 3",
        "python tools/no_such.py",
        "python tools/demo.py --fast",
        "python -m torch.distributed.launch train.py",
        "make no-such-target",
        "OMP_NUM_THREADS=1 python test.py --modell x",
        "bash tools/no_such.sh",
        "pythn train.py",
    ],
)
def test_a_command_that_does_not_exist_is_noticed(command):
    with pytest.raises((AssertionError, UserError)):
        check(command)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_is_of_a_known_kind(document):
    """A fence that is not closed, indented or of another language would hide its commands."""
    found = documents.blocks(document)
    assert {block.language for block in found} <= LANGUAGES
    assert documents.read(document).count("```") == 2 * len(found)
    shown = re.findall(r"<!-- (?:not |file)[^>]*-->", documents.read(document))
    assert len(shown) == sum(bool(block.mark) for block in found), "a mark is not above a block"
    for block in found:
        assert not block.mark or len(block.note) > 5 or block.mark == "file"
        if block.language == "yaml":
            yaml.safe_load(block.text)
        if block.language == "python":
            compile(block.text, document, "exec")


# What paths in the text may begin at.
BASES = (ROOT, ROOT / "official" / "vision" / "classification")


# docs/migrating.md is about flags and files of others; test_docs_migrating.py knows which are ours.
@pytest.mark.parametrize("document", [name for name in DOCUMENTS if "migrating" not in name])
def test_flags_targets_and_scripts_in_the_text_exist(document):
    flags = documents.flags()
    for span in documents.spans(documents.prose(document)):
        first, *words = span.split()
        if first in ("make", "python", "bash"):
            check(span)
        if re.fullmatch(r"[\w./-]+/[\w-]+\.(py|sh|cpp|h)", first):
            folders = (*BASES, (ROOT / document).parent)
            assert any((base / first).exists() for base in folders), f"{document}: `{span}`"
        known = flags.get(first) or set().union(*flags.values())
        for word in words if first in flags else [first]:
            if re.fullmatch(r"--?[A-Za-z][\w-]*", word):
                assert word in known, f"{document}: `{span}`"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", documents.prose(document)):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / document).parent / name if name else ROOT / document
        assert path.exists(), f"{document}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
            assert anchor in map(documents.slug, headings), f"{document}: {target}"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights in the shape of published ones: MegEngine's, and a file as MMPreTrain writes it."""
    folder = tmp_path_factory.mktemp("weights")
    for build in (resnet18, resnet50):
        state = build().state_dict()
        mge.save(state, str(folder / f"{build.__name__}.pkl"))
    checkpoint = {"epoch": 1, "state_dict": state}  # as MegEngine/Models' train.py writes it
    mge.save(checkpoint, str(folder / "checkpoint.pkl"))
    heads = {name: f"{'head' if name[:2] == 'fc' else 'backbone'}.{name}" for name in state}
    (folder / "resnet50.pth").write_bytes(torch_file({heads[name]: state[name] for name in state}))
    small = ARCHS["resnet18_cifar"]().state_dict()
    mge.save(small, str(folder / "resnet18_cifar.pkl"))
    return folder


@pytest.fixture()
def place(tmp_path, weights):
    """A folder that looks like a checkout, with an ImageNet of two classes and photographs."""
    for name in ("train.py", "test.py", "inference.py", "tools", "official"):
        (tmp_path / name).symlink_to(ROOT / name)
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (300, 280, 3), np.uint8)
    for wnid in ("n01440764", "n02123394"):
        (tmp_path / "imagenet" / "val" / wnid).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "imagenet" / "val" / wnid / "0.JPEG"), picture)
    (tmp_path / "photos").mkdir()
    for name in ("cat.jpg", "photos/0.jpg", "photos/1.jpg"):
        cv2.imwrite(str(tmp_path / name), picture)
    for name in ("resnet50.pth", "checkpoint.pkl"):
        (tmp_path / name).symlink_to(weights / name)
    kernels = Path(_get_megengine_home()) / "resnet_ops"  # which need not be compiled once more
    kernels.mkdir(parents=True, exist_ok=True)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "resnet_ops").symlink_to(kernels)
    return tmp_path


@pytest.fixture()
def published(place, weights, monkeypatch):
    """Downloads come from a server of our own, whose weights nobody has published."""
    monkeypatch.setenv("MGE_HOME", str(place / "cache"))

    def fetch(row, *_, **__):
        return row.shipped or weights / f"{row.arch}.pkl"

    monkeypatch.setattr(trained, "fetch", fetch)
    with Server() as server:
        monkeypatch.setenv("RESNET_WEIGHTS_MIRROR", server.url)
        for arch in ("resnet18", "resnet50"):
            name = default_row(arch).url.rsplit("/", 1)[1]
            data = (weights / f"{arch}.pkl").read_bytes()
            server.answers[f"/models/weights/{name}"] = whole(data)
        yield


# What ends a command soon. The last of two values is the one that counts.
SMALLER = {
    "train.py": ["--epochs", "1", "--batch-size", "8"],
    "tools/make_shapes.py": ["--train", "40", "--val", "20"],
}


def run(command, place):
    variables = dict(re.findall(r"^([A-Z_]+)=(\S+) ", command))
    program, script, *words = without_variables(command.replace("/data/imagenet", "imagenet"))
    assert program == "python", f"{command}: only python is run here; say why not in a mark"
    done = subprocess.run(
        [sys.executable, script, *words, *SMALLER.get(script, [])],
        cwd=place,
        env={**os.environ, **variables},
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert "Traceback" not in done.stderr, f"{command}\n{done.stderr}"


RUNS = [
    document
    for document in DOCUMENTS
    if document not in CONTINUATIONS
    and any(is_run(document, block) for block in documents.blocks(document))
]


def run_blocks(document, place):
    names = {"images": mge.Tensor(np.zeros((2, 3, 32, 32), np.float32))}
    for block in documents.blocks(document):
        if block.mark == "file":
            (place / block.note).write_text(block.text, "utf-8")
        elif is_run(document, block) and block.language == "bash":
            for command in block.commands:
                run(command, place)
        elif is_run(document, block):
            exec(compile(block.text, document, "exec"), names)


@pytest.mark.parametrize("document", RUNS)
@pytest.mark.usefixtures("published")
def test_what_is_not_marked_works_from_top_to_bottom(document, place, monkeypatch):
    monkeypatch.chdir(place)
    run_blocks(document, place)
    for continuation, first in CONTINUATIONS.items():
        if first == document:
            run_blocks(continuation, place)
    if document == "README.md":
        made = "named.png heat.png answers.csv features.npz result.json resnet50.safetensors"
        runs = "output/resnet20_cifar/curves.png output/resnet18/best.safetensors"
        assert all((place / name).stat().st_size for name in f"{made} {runs}".split())
