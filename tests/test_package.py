"""What pip installs: every file of the package, the commands, and room for MegEngine/Models."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import megengine as mge
import pytest
from packaging.requirements import Requirement

from official.vision.classification import __version__
from official.vision.classification.resnet.cifar import resnet20_cifar

ROOT = Path(__file__).resolve().parents[1]
BUILT_FROM = ("pyproject.toml", "requirements.txt", "README.md", "LICENSE")
COMMANDS = ("train", "test", "inference")


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, because pip leaves its files beside the sources."""
    setuptools = pytest.importorskip("setuptools", minversion="64")
    if int(setuptools.__version__.split(".")[0]) < 71:
        pytest.importorskip("wheel", reason="setuptools before 71 needs the package wheel")
    place = tmp_path_factory.mktemp("package")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "official", place / "source" / "official", ignore=ignored)
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, place / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel"]
    run([*pip, str(place / "source"), "--no-deps", "--no-build-isolation", "-w", str(place)])
    (path,) = place.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel):
    """A folder in place of site-packages, and an environment that has it."""
    target = wheel.parent / "target"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps"]
    run([*pip, "--no-index", "--target", str(target), str(wheel)])
    return target, {**os.environ, "PYTHONPATH": str(target), "RESNET_KERNELS": "megengine"}


def test_the_wheel_has_every_file_of_the_package(wheel):
    with zipfile.ZipFile(wheel) as file:
        packed = {name for name in file.namelist() if ".dist-info/" not in name}
    present = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "official").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert packed == present
    for suffix in (".yaml", ".cpp", ".h", ".txt", ".jpg", ".py"):
        assert any(name.endswith(suffix) for name in packed)


def test_metadata(wheel):
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith("/METADATA"))
        metadata = Parser().parsestr(file.read(name).decode())
    assert metadata["Version"] == __version__
    assert set(metadata["Requires-Python"].split(",")) == {">=3.8", "<3.11"}
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = {str(Requirement(line.split("#")[0])) for line in lines if not line.startswith("#")}
    assert {str(Requirement(line)) for line in metadata.get_all("Requires-Dist")} == wanted
    assert len(wanted) > 10


def test_the_version_is_written_once():
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert __version__ not in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_scripts_tell_the_version(script, name):
    done = script(f"{name}.py", "--version")
    assert (done.returncode, done.stdout) == (0, f"{name}.py {__version__}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(installed, tmp_path, name):
    target, environment = installed
    command = [sys.executable, str(target / "bin" / f"resnet-{name}")]
    shown = run([*command, "--help"], cwd=tmp_path, env=environment)
    assert shown.startswith(f"usage: resnet-{name} ")
    assert f"resnet-{name} " in shown.split("\n\n", 2)[2]  # the examples
    assert f"{name}.py" not in shown
    module = [sys.executable, "-m", f"official.vision.classification.{name}", "--version"]
    assert run(module, cwd=tmp_path, env=environment).endswith(f" {__version__}\n")


def test_the_command_of_all(installed, tmp_path):
    target, environment = installed
    command = [sys.executable, str(target / "bin" / "resnet")]
    assert "check-data" in run(command, cwd=tmp_path, env=environment)
    shown = run([*command, "check-data", "--help"], cwd=tmp_path, env=environment)
    assert shown.startswith("usage: resnet check-data [flags]")
    assert run([*command, "--version"], cwd=tmp_path, env=environment) == f"resnet {__version__}\n"


def test_a_picture_is_named_from_another_folder(installed, tmp_path, script):
    target, environment = installed
    mge.save(resnet20_cifar().state_dict(), str(tmp_path / "weights.pkl"))
    words = ["--arch", "resnet20_cifar", "--model", str(tmp_path / "weights.pkl"), "--json"]
    words += ["--device", "cpu"]
    command = [sys.executable, str(target / "bin" / "resnet-inference"), *words]
    answer = json.loads(run(command, cwd=tmp_path, env=environment))
    here = script("inference.py", *words, env={**os.environ, "RESNET_KERNELS": "megengine"})
    expected = json.loads(here.stdout)
    picture = str(Path("official", "assets", "cat.jpg"))
    assert (answer.pop("image"), expected.pop("image")) == (
        str(target / picture),
        str(ROOT / picture),
    )
    assert answer == expected


THEIRS = {
    "vision/detection/__init__.py": "",
    "vision/detection/models.py": "import official.vision.classification.resnet.model as resnet",
    "vision/classification/shufflenet/model.py": "",
    "vision/classification/resnet/model.py": "raise ImportError('theirs')",
}


@pytest.mark.parametrize("ours_first", [True, False])
def test_other_models_of_megengine_models_stay_importable(tmp_path, ours_first):
    """Its folders official, vision and classification have no __init__.py."""
    for name, text in THEIRS.items():
        path = tmp_path / "official" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    code = (
        "import official.vision.classification.shufflenet.model\n"
        "from official.vision.detection import models\n"
        "print(models.resnet.__file__)\n"
    )
    paths = [str(ROOT), str(tmp_path)][:: 1 if ours_first else -1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    found = run([sys.executable, "-c", code], cwd=tmp_path.parent, env=environment)
    assert ROOT / "official" in Path(found.strip()).parents
