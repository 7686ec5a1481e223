"""train.py and test.py on several nodes, each of which is a process on this machine."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from official.vision.classification.training.checkpoint import read_checkpoint
from tests import documents

ROOT = Path(__file__).resolve().parents[1]
ARCH = "resnet20_cifar"


@pytest.fixture()
def start():
    """Starts one of the scripts as a node's process; what is left of them ends with the test."""
    started = []

    def start(name, *arguments, **variables):
        environment = {key: value for key, value in os.environ.items() if "SLURM" not in key}
        environment.update(RESNET_DIST_SECRET="a word of this test", **variables)
        process = subprocess.Popen(
            [sys.executable, str(ROOT / name), *map(str, arguments)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def told(*processes):
    """Exit codes and what was said on stderr."""
    answers = [process.communicate(timeout=240)[1] for process in processes]
    return [process.returncode for process in processes], answers


def srun(node, port, job="4711"):
    """What srun tells a task; node 0's name is one that leads here."""
    return {
        "SLURM_JOB_ID": job,
        "SLURM_STEP_NODELIST": "localhost,gpu[1-7]",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
        "SLURM_PROCID": str(node),
        "SLURM_NODEID": str(node),
        "SLURM_LOCALID": "0",
    }


def flags_of(data, recipe, save, *more):
    flags = ("--data", data, "-c", recipe, "--arch", ARCH, "--save", save, "--device", "cpu")
    return ("train.py", *flags, "-j", 1, "--resume", "auto", *more)


# Starts the command for two nodes as srun does, and warns it once, as --signal=USR1@300 would have.
SRUN = """#!/bin/bash
export SLURM_STEP_NODELIST='localhost,gpu[1-7]' SLURM_STEP_NUM_TASKS=2 SLURM_LOCALID=0
export SLURM_STEP_TASKS_PER_NODE='1(x2)'
for node in 0 1; do
    SLURM_PROCID=$node SLURM_NODEID=$node "$@" 2> "stderr-$node-$SLURM_RESTART_COUNT" &
    pids+=($!)
done
if [ "$SLURM_RESTART_COUNT" = 0 ]; then
    until [ -s "$METRICS" ]; do sleep 0.05; done
    kill -USR1 "${pids[@]}"
fi
worst=0
for pid in "${pids[@]}"; do
    wait "$pid"; code=$?
    [ $code -gt $worst ] && worst=$code
done
exit $worst
"""


@pytest.fixture()
def job(tmp_path):
    """The script of docs/slurm.md, with its words replaced, and the commands that it calls."""
    (script,) = (b.text for b in documents.blocks("docs/slurm.md") if "#SBATCH" in b.text)
    commands = tmp_path / "bin"
    commands.mkdir()
    requeue = '#!/bin/bash\necho "$@" >> requeued\n'
    for name, text in (("srun", SRUN), ("scontrol", requeue)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)

    def job(port, changes, **variables):
        text = script
        for old, new in changes.items():
            assert text.count(old) == 1, old
            text = text.replace(old, str(new))
        environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"}
        environment.update(SLURM_JOB_ID=str(port - 20000), **variables)
        return subprocess.run(
            ["bash", "-c", text],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
        )

    return job


def test_the_job_of_the_document_is_requeued_and_ends_as_one_that_never_was(
    start, job, tiny_images, tiny_recipe, tmp_path
):
    """Two nodes, warned by SIGUSR1 and started again by the same script; beside it --ngpus 2."""
    whole = tmp_path / "whole"
    assert told(start(*flags_of(tiny_images, tiny_recipe, whole, "--ngpus", 2)))[0] == [0]
    port, folder = free_port_of_jobs(), tmp_path / "output" / ARCH
    changes = {
        ".venv/bin/python train.py": f"{sys.executable} {ROOT / 'train.py'}",
        "/data/imagenet": tiny_images,
        "resnet50_8xb32_in1k": f"{tiny_recipe} --arch {ARCH} --device cpu",
        "--ngpus 8 --workers 7": "--workers 1",
    }
    for attempt, expected in enumerate((138, 0)):
        done = job(
            port, changes, SLURM_RESTART_COUNT=str(attempt), METRICS=str(folder / "metrics.jsonl")
        )
        said = [(tmp_path / f"stderr-{node}-{attempt}").read_text() for node in (0, 1)]
        assert done.returncode == expected, (done.stdout, done.stderr, said)
        for node, text in enumerate(said):
            where = f"node 0 is localhost, port {port}"
            assert f"by the variables of Slurm this is node {node} of 2, and {where}" in text
    assert (tmp_path / "requeued").read_text() == f"requeue {port - 20000}\n"
    ends = [read_checkpoint(one / "checkpoint.safetensors") for one in (whole / ARCH, folder)]
    assert ends[0][0].step == ends[1][0].step > 0
    assert ends[0][1].keys() == ends[1][1].keys()
    assert all((ends[1][1][name] == value).all() for name, value in ends[0][1].items())
    log = (folder / "log.txt").read_text()
    assert "SIGUSR1: saved step" in log and "resumed from" in log


def free_port_of_jobs():
    """One that the number of a job stands for."""
    for port in range(20000 + os.getpid() % 9000, 30000):
        with socket.socket() as server, contextlib.suppress(OSError):
            server.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port")


def test_the_line_of_the_document_is_one_that_train_py_takes():
    (script,) = (b.text for b in documents.blocks("docs/slurm.md") if "#SBATCH" in b.text)
    (line,) = (line for line in script.splitlines() if line.startswith("srun "))
    _, args = documents.parse("train.py", shlex.split(line.split("train.py ")[1]))
    assert (args.resume, args.ngpus, args.world_size) == ("auto", 8, None)


def nodes_of(start, port, *lines):
    """Two nodes by flags, each with a line of its own."""
    shared = ("--world-size", 2, "--dist-port", port, "--dist-timeout", 60)
    return [start(*line, *shared, "--rank", node) for node, line in enumerate(lines)]


@pytest.mark.parametrize(
    ("there", "here", "name"),
    [
        (("--epochs", 5), ("--epochs", 6), "--epochs is 5 there and 6 here"),
        (("--seed", 1), (), "--seed is 1 there and 0 here"),
        (
            ("--set", "augment.jitter=0.1"),
            (),
            "--set is ['augment.jitter=0.1'] there and [] here",
        ),
    ],
)
def test_flags_that_differ_are_named_before_anything_starts(
    start, tiny_images, tiny_recipe, tmp_path, port, there, here, name
):
    lines = [flags_of(tiny_images, tiny_recipe, tmp_path / "out", *more) for more in (there, here)]
    both = nodes_of(start, port, *lines)
    codes, said = told(both[1])
    assert codes == [2] and f"node 0 was started otherwise: {name}\n" in said[0]
    both[0].send_signal(signal.SIGINT)
    codes, said = told(both[0])
    assert (
        codes == [130]
        and f"node 1 was turned away: node 0 was started otherwise: {name}" in said[0]
    )
    assert not (tmp_path / "out").exists()


def test_recipes_of_the_same_name_are_compared_by_their_text(
    start, tiny_images, tiny_recipe, tmp_path, port
):
    copies = []
    for node, text in enumerate(("", "weight_decay: 0.0002")):
        (tmp_path / str(node)).mkdir()
        copies.append(tmp_path / str(node) / "recipe.yaml")
        copies[-1].write_text(
            tiny_recipe.read_text().replace("weight_decay: 0.0001", text or "weight_decay: 0.0001")
        )
    both = nodes_of(
        start, port, *(flags_of(tiny_images, copy, tmp_path / "out") for copy in copies)
    )
    codes, said = told(both[1])
    assert codes == [2] and "--config is a file of sha256" in said[0]


def test_images_that_differ_are_named_before_the_first_step(
    start, tiny_images, tiny_recipe, tmp_path, port
):
    other = tmp_path / "data"
    shutil.copytree(tiny_images, other)
    (other / "train/red/7.png").rename(other / "train/red/8.png")
    lines = [flags_of(data, tiny_recipe, tmp_path / "out") for data in (tiny_images, other)]
    codes, said = told(*nodes_of(start, port, *lines))
    assert codes == [1, 1]
    what = "the list of training images and their classes differs between rank 0 and"
    assert all(f"{what} rank(s) 1" in text for text in said)
    assert not list((tmp_path / "out").rglob("checkpoint*"))


def test_weights_that_differ_are_not_tested_together(start, tiny_images, tmp_path, port):
    lines = []
    for node in (0, 1):
        done = told(
            start(
                *("train.py", "--data", tiny_images, "--arch", ARCH, "--epochs", 1, "-b", 8),
                *("--save", tmp_path / str(node), "--device", "cpu", "--seed", node, "-j", 1),
                *("--set", "preprocess.resize=16", "--set", "preprocess.crop=16"),
                *("--set", "augment.crop=padded"),
            )
        )
        assert done[0] == [0], done
        model = tmp_path / str(node) / ARCH / "best.safetensors"
        lines.append(("test.py", "--data", tiny_images, "--model", model, "--device", "cpu"))
    result = tmp_path / "result.json"
    both = nodes_of(start, port, lines[0], lines[1])
    codes, said = told(both[1])
    assert codes == [2] and "--model is a file of sha256" in said[0]
    both[0].kill()  # it waits for another node 1
    copied = tmp_path / "elsewhere.safetensors"  # the same weights at another place
    shutil.copy(lines[0][4], copied)
    again = (*lines[0][:4], copied, *lines[0][5:])
    codes, said = told(*nodes_of(start, port + 1, (*lines[0], "--json", result), again))
    assert codes == [0, 0], said
    assert json.loads(result.read_text())["total"] == 15


def test_a_signal_that_comes_to_every_process_of_a_job_saves_it(
    start, tiny_images, tiny_recipe, tmp_path
):
    """Slurm sends SIGTERM to the ranks as well as to their launcher, who hands it on."""
    line = flags_of(tiny_images, tiny_recipe, tmp_path, "--ngpus", 2, "--epochs", 200)
    job = start(*line)
    metrics = tmp_path / ARCH / "metrics.jsonl"
    while not metrics.exists() and job.poll() is None:
        time.sleep(0.02)
    ranks = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    assert len(ranks) >= 2
    for pid in (*map(int, ranks), job.pid):
        os.kill(pid, signal.SIGTERM)
    codes, said = told(job)
    assert codes == [143], said
    assert "SIGTERM: saved step" in (tmp_path / ARCH / "log.txt").read_text()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--dist-port", 70000), "'70000' is no port"),
        (("--rank", 1), "--rank 1 needs --world-size 2 or more"),
        (("--dist-secret", "/nowhere", "--world-size", 2), "/nowhere: no such file"),
        (("--dist-addr", "192.0.2.1", "--world-size", 2), "is no address of this machine"),
        (("--dist-addr", "no.such.host.invalid", "--world-size", 2), "--dist-addr no.such.host"),
    ],
)
def test_flags_that_cannot_be_followed(start, tiny_images, tiny_recipe, tmp_path, flags, said):
    codes, answers = told(start(*flags_of(tiny_images, tiny_recipe, tmp_path / "out", *flags)))
    assert codes == [2] and said in answers[0] and len(answers[0].splitlines()) <= 2


def test_several_devices_for_each_of_several_processes(
    start, tiny_images, tiny_recipe, tmp_path, port
):
    variables = {**srun(0, port), "SLURM_STEP_TASKS_PER_NODE": "2"}
    line = flags_of(tiny_images, tiny_recipe, tmp_path / "out", "--ngpus", 2)
    codes, said = told(start(*line, **variables))
    assert codes == [2]
    assert "--ngpus 2: Slurm has started 2 processes on this machine, each for one" in said[0]
