"""The Dockerfile: built where docker runs and RESNET_DOCKER asks for it, else read with care."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "Dockerfile").read_text("utf-8")


def instructions():
    """(word, rest) of each instruction, with continued lines joined."""
    lines = [line for line in TEXT.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in joined.splitlines()]


def test_the_base_is_a_python_that_megengine_knows():
    (base,) = [rest for word, rest in instructions() if word == "FROM"]
    assert re.fullmatch(r"python:3\.(8|9|10)-slim-\w+", base)


def test_words_are_docker_s_and_files_are_there():
    known = set("FROM RUN WORKDIR COPY USER ENV VOLUME ENTRYPOINT CMD".split())
    assert {word for word, _ in instructions()} <= known
    for word, rest in instructions():
        if word == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()
        if word in ("ENTRYPOINT", "CMD"):
            assert re.fullmatch(r'\["[^"]+"(, "[^"]+")*\]', rest)  # no shell between
    assert [word for word, _ in instructions()].index("USER") < len(instructions()) - 1


def test_it_does_not_run_as_root_and_keeps_no_lists():
    users = [rest for word, rest in instructions() if word == "USER"]
    assert users and users[-1] not in ("root", "0")
    for _, rest in instructions():
        if "apt-get install" in rest:
            assert "--no-install-recommends" in rest and "rm -rf /var/lib/apt/lists/*" in rest
        if "pip install" in rest:
            assert "--no-cache-dir" in rest


def test_what_pip_reads_names_the_headless_opencv():
    """The sed of the Dockerfile, run on the file."""
    (rest,) = [rest for word, rest in instructions() if word == "RUN" and "sed" in rest]
    expression = re.search(r"sed '([^']+)'", rest)[1]
    done = subprocess.run(
        ["sed", expression, str(ROOT / "requirements.txt")], capture_output=True, text=True
    )
    assert re.search(r"^opencv-python-headless==[\d.]+", done.stdout, re.MULTILINE)
    assert not re.search(r"^opencv-python==", done.stdout, re.MULTILINE)


def test_sh_understands_every_run(tmp_path):
    for word, rest in instructions():
        if word == "RUN":
            assert subprocess.run(["sh", "-n", "-c", rest]).returncode == 0


def has_docker():
    docker = shutil.which("docker")
    return bool(docker) and subprocess.run([docker, "info"], capture_output=True).returncode == 0


@pytest.mark.skipif(not has_docker(), reason="no docker that runs")
@pytest.mark.skipif("RESNET_DOCKER" not in os.environ, reason="RESNET_DOCKER=1 builds it: 2 GB")
@pytest.mark.timeout(3600)
def test_it_builds_and_names_a_picture():
    subprocess.run(["docker", "build", "-t", "resnet-test", str(ROOT)], check=True)
    command = ["docker", "run", "--rm", "--user", "12345", "resnet-test", "inference.py"]
    done = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: inference.py")
