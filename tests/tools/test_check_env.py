"""tools/check_env.py: what it finds, in this environment and in ones that are broken."""

import json
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import megengine
import pytest
from packaging.requirements import Requirement

from official.vision.classification.engine.device import count_gpus
from tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[2]
PINS = (ROOT / "requirements.txt").read_text(encoding="utf-8")


@pytest.fixture()
def check_env():
    return load_script("tools/check_env.py")


@pytest.fixture()
def findings(check_env):
    return check_env.Findings()


def test_requirements_are_those_that_pip_reads(check_env):
    read = {each.name: each for each in check_env.requirements(PINS)}
    lines = [Requirement(line.split("#")[0]) for line in PINS.splitlines() if line[0] != "#"]
    pip = [each for each in lines if each.marker is None or each.marker.evaluate()]
    assert len(pip) < len(lines)
    assert len({each.name for each in lines}) == len(pip)  # one for each Python
    assert {name: f"=={each.version}" for name, each in read.items()} == {
        each.name: str(each.specifier) for each in pip
    }
    optional = {name for name, each in read.items() if each.is_optional}
    assert optional == {"onednn-cpu-gomp", "onednn-devel-cpu-gomp"}


@pytest.mark.parametrize("version", ["3.7", "3.8", "3.9", "3.10", "3.11"])
def test_markers_are_understood_as_pip_does(check_env, version):
    numbers = tuple(map(int, version.split(".")))
    for line in PINS.splitlines():
        if line[0] == "#":
            continue
        marker = Requirement(line.split("#")[0]).marker
        expected = marker is None or marker.evaluate({"python_version": version})
        assert check_env.is_for(numbers, line) == expected, line


def packages(check_env, findings, monkeypatch, **changes):
    """The check of an environment that has all pins but ``changes``."""
    wanted = check_env.requirements(PINS)
    present = {each.name: each.version for each in wanted}
    present.update({name.replace("_", "-"): version for name, version in changes.items()})
    monkeypatch.setattr(check_env, "installed", present.get)
    return check_env.check_packages(findings, wanted)


def test_a_sound_environment(check_env, findings, monkeypatch):
    assert packages(check_env, findings, monkeypatch) == []
    assert (findings.problems, findings.warnings) == ([], [])
    assert "numpy 1.2" in findings.facts["packages"]
    assert findings.lines()[-1] == "check-env: ready"


def test_missing_packages(check_env, findings, monkeypatch):
    changes = {"megengine": None, "tqdm": None, "onednn_cpu_gomp": None}
    assert packages(check_env, findings, monkeypatch, **changes) == ["megengine", "tqdm"]
    (problem,), (warning,) = findings.problems, findings.warnings
    assert problem == "not installed: megengine, tqdm; pip install -r requirements.txt"
    assert warning.startswith("not installed: onednn-cpu-gomp; CPUs will be slow")
    assert findings.lines()[-1] == "check-env: 1 problem to mend"


def test_headless_opencv_will_do(check_env, findings, monkeypatch):
    changes = {"opencv_python": None, "opencv_python_headless": "4.11.0.86"}
    assert packages(check_env, findings, monkeypatch, **changes) == []
    assert (findings.problems, findings.warnings) == ([], [])


@pytest.mark.parametrize(("version", "stops"), [("2.0.1", True), ("1.23.5", False)])
def test_another_numpy(check_env, findings, monkeypatch, version, stops):
    packages(check_env, findings, monkeypatch, numpy=version)
    found = findings.problems if stops else findings.warnings
    assert len(findings.problems) + len(findings.warnings) == 1
    assert f"numpy {version}" in found[0]
    assert ("pip install numpy==1.2" in found[0]) == stops


@pytest.mark.parametrize("version", [(3, 7, 9), (3, 11, 2)])
def test_wrong_python(check_env, findings, monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    check_env.check_python(findings)
    monkeypatch.undo()
    (problem,) = findings.problems
    assert "wheels for 3.8, 3.9 and 3.10 only; make setup PYTHON=" in problem


def test_wrong_system(check_env, findings, monkeypatch):
    monkeypatch.setattr(check_env.platform, "machine", lambda: "aarch64")
    check_env.check_python(findings)
    assert "Linux on aarch64" in findings.problems[0]


def test_this_system(check_env, findings):
    check_env.check_python(findings)
    check_env.check_machine(findings)
    assert findings.problems == []
    assert sys.executable in findings.facts["Python"]


def failing(stderr, code=1):
    return lambda words: subprocess.CompletedProcess(words, code, "", stderr)


def test_no_libgl(check_env, findings, monkeypatch):
    message = "Traceback\n  x\nImportError: libGL.so.1: cannot open shared object file"
    monkeypatch.setattr(check_env, "run_apart", failing(message))
    assert not check_env.check_imports(findings, "4.11.0.86")
    assert findings.problems[0] == (
        "import cv2: ImportError: libGL.so.1: cannot open shared object file; pip uninstall "
        "opencv-python, then pip install opencv-python-headless==4.11.0.86"
    )


def test_a_package_that_takes_its_process_with_it(check_env, findings, monkeypatch):
    monkeypatch.setattr(check_env, "run_apart", failing("", -11))
    assert not check_env.check_imports(findings, "1")
    assert "import megengine: ended by signal 11" in findings.problems[1]


def test_hanging_is_an_answer(check_env, monkeypatch):
    monkeypatch.setattr(check_env, "PROBE_SECONDS", 0.2)
    done = check_env.run_apart(["-c", "import time; time.sleep(9)"])
    assert check_env.last_line(done) == "no answer within 0.2 seconds"


def answering(**changes):
    """What the probe says, with ``changes``."""
    found = {
        "gpus": [],
        "kernels": "some",
        "jpeg": "whole images",
        "remarks": [],
        "difference": 1e-7,
        "cache": "/",
    }
    text = json.dumps({**found, **changes})
    return lambda words: subprocess.CompletedProcess(words, 0, f"noise\n{text}\n", "")


@pytest.mark.parametrize(
    ("remark", "way_out"),
    [
        ("no native kernels, …: no C++ compiler (g++) was found", "apt-get install g++"),
        ("no native kernels, …: the package x is not installed", "-r requirements.txt"),
    ],
)
def test_no_native_kernels(check_env, findings, monkeypatch, remark, way_out):
    monkeypatch.setattr(check_env, "run_apart", answering(remarks=[remark]))
    check_env.check_project(findings)
    assert findings.warnings[0].startswith(remark) and way_out in findings.warnings[0]
    assert findings.facts["CPU kernels"] == "some"


def test_kernels_that_are_wrong(check_env, findings, monkeypatch):
    monkeypatch.setattr(check_env, "run_apart", answering(difference=0.5))
    check_env.check_project(findings)
    (problem,) = findings.problems
    assert "differ by 5.0e-01" in problem and "RESNET_KERNELS=megengine" in problem


def test_a_project_that_does_not_run(check_env, findings, monkeypatch):
    monkeypatch.setenv("RESNET_KERNELS", "fastest")
    check_env.check_project(findings)
    (problem,) = findings.problems
    assert problem.startswith("the project does not run: ")
    assert "RESNET_KERNELS must be native, numpy or megengine" in problem


Usage = namedtuple("Usage", "total used free")


def test_the_cache(check_env, findings, monkeypatch, tmp_path):
    asked = []
    usage = lambda path: asked.append(Path(path)) or Usage(9, 9, 79_460 * 10**6)  # noqa: E731
    monkeypatch.setattr(check_env.shutil, "disk_usage", usage)
    check_env.check_cache(findings, tmp_path / "not" / "there")
    assert findings.facts["cache"].startswith(f"{tmp_path}/not/there, 79.5 GB free")
    assert asked == [tmp_path]  # what is not there yet will be on the same disk
    assert findings.problems == []
    monkeypatch.setattr(check_env.shutil, "disk_usage", lambda _: Usage(9, 9, 10**9))
    check_env.check_cache(findings, tmp_path)
    assert f"{tmp_path}: 1.0 GB free" in findings.warnings[0]
    monkeypatch.setattr(check_env.os, "access", lambda *_: False)
    check_env.check_cache(findings, tmp_path)
    assert "cannot be written; set MGE_HOME" in findings.problems[0]


@pytest.mark.skipif(count_gpus() > 0, reason="there is a GPU")
def test_a_gpu_that_does_not_compute(check_env, findings):
    check_env.check_gpu(findings)
    (problem,) = findings.problems
    assert problem.startswith("gpu0 does not compute: ")
    assert problem.endswith("; --device cpu works anywhere")


def test_the_convolution_that_a_gpu_computes(check_env):
    assert check_env.probe_gpu("cpu:default") == {}


def test_packages_that_are_missing_are_told_once(check_env, monkeypatch, capsys):
    monkeypatch.setattr(check_env, "installed", lambda name: None)
    monkeypatch.setattr(check_env, "run_apart", None)
    assert check_env.main([]) == 1
    assert capsys.readouterr().out.count("problem: ") == 1


def test_without_any_package():
    """-S leaves site-packages out."""
    command = [sys.executable, "-S", str(ROOT / "tools" / "check_env.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert "problem: not installed: megengine, numpy, " in done.stdout
    assert "CPU  " in done.stdout and "memory  " in done.stdout
    assert done.stdout.endswith("check-env: 1 problem to mend\n")


def test_this_environment(script):
    done = script("tools/check_env.py")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = done.stdout.splitlines()
    assert lines[-1] == "check-env: ready"
    facts = dict(line.split("  ", 1) for line in lines if "  " in line and line[0] != " ")
    assert f"megengine {megengine.__version__}" in facts["packages"]
    assert "kernels" in facts["CPU kernels"]
    assert all(len(line) <= 100 or line.startswith("warning: ") for line in lines)
