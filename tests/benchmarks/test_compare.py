"""The benchmarks' arithmetic, their tables and how they talk to their workers."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import compare, machine, runtimes, summary
from benchmarks.interleave import Configuration, run_in_turns
from benchmarks.peak import Peak
from benchmarks.protocol import Worker, machine_cpu_seconds
from benchmarks.report import render
from official.vision.classification.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_speed_is_that_of_the_median_step():
    # 16 images in 1, 2 and 4 s: 16, 8 and 4 images/s, whose mean is 28/3.
    speed = summary.speed([4.0, 1.0, 2.0], images=16)
    variance = sum((rate - 28 / 3) ** 2 for rate in (16, 8, 4)) / 2
    assert speed == (8.0, pytest.approx(variance**0.5), 3)
    assert summary.speed([2.0], images=16) == (8.0, 0.0, 1)


def test_operations_of_two_layers():
    """Layers of 10 and 20 multiply-adds: 30 forward, 30 for the weights, 20 for the maps."""
    assert summary.operations(30, 10, "inference") == 2 * 30
    assert summary.operations(30, 10, "train") == 2 * (30 + 30 + 20)


def run(seconds, peak_mb=100.0, **facts):
    facts = {"peak_mb": peak_mb, "versions": {}, "kernels": "a kind", **facts}
    return {"seconds": seconds, "facts": facts}


@pytest.fixture()
def results():
    """16 images in 0.5 s here, in 1 s by the better PyTorch, in 40 s by the better stock."""
    runs = {
        "ours": run([0.5, 0.4, 0.9], 240.0, macs=50, first_macs=10, versions={"Numbers": "1.2"}),
        "PyTorch, NCHW": run([2.0, 2.0, 2.0], 200.0, versions={"PyTorch": "7"}),
        "PyTorch, channels_last": run([1.0, 1.1, 0.7], 300.0),
        "ours, bf16": run([0.25, 0.25, 0.25]),
        "PyTorch, bf16": run([0.2, 0.2, 0.2]),
        "stock MegEngine": run([50.0]),
        "stock MegEngine, multithread": run([40.0]),
    }
    loader = {"ours": run([2.0], images=200), "Pillow": run([5.0], images=200)}
    shares = {"idle_share": 0.012, "others_share": 0.03}
    return {
        "date": "2024-02-29",
        "machine": {
            "cpu": "A CPU",
            "cores": 4,
            "flags": ["fma"],
            "memory_gb": 16.04,
            "system": "Linux 6",
            "python": "3.8.1",
            "load": 0.25,
        },
        "threads": 4,
        "batch": 16,
        "size": 224,
        "rounds": 3,
        "warmup": 2,
        "pause": 0.1,
        # The median of all cores is 1.6e-7 GFLOP/s, that is 160 operations per second.
        "peak": [
            {
                "threads": threads,
                "fp32": rate,
                "bf16": None,
                "instructions": {"fp32": "AVX2", "bf16": None},
            }
            for threads, rates in ((1, (100, 120, 110)), (4, (1e-7, 1.6e-7, 9e-7)))
            for rate in rates
        ],
        "networks": [{"arch": "resnet18", "mode": "inference", "runs": runs, **shares}],
        "loader": {"runs": loader, "idle_share": 0.5, "others_share": 0.0},
    }


def cells(page):
    """The tables' rows by what is in front of their last columns."""
    return [
        [cell.strip() for cell in line[1:-1].split("|")]
        for line in page.splitlines()
        if line.startswith("| ")
    ]


def test_tables(results):
    rows = cells(render(results))
    ratios = ["100 ×", "80.0 ×", "2.00 ×", "0.80 ×", "2.00 ×", "1.20 ×"]
    assert ["ResNet-18", "inference", *ratios] in rows
    # A step of 16 images is 16 * 100 operations in 0.5 s, of 160 * 0.5 that would be possible.
    assert [*("ResNet-18", "inference", "ours"), "32.0", "11.3", "3", "2000 %", "240 MB"] in rows
    assert [
        *("ResNet-18", "inference", "PyTorch, bf16"),
        "80.0",
        "0.00",
        "3",
        "–",
        "100 MB",
    ] in rows
    assert ["Pillow", "40.0", "0.00", "1", "2.50 ×"] in rows
    assert ["fp32", "AVX2", "110 GFLOP/s", "0 GFLOP/s"] in rows
    assert ["bf16", "–", "–", "–"] in rows
    assert ["versions", "Numbers 1.2, PyTorch 7, Python 3.8.1"] in rows


def test_training_counts_both_gradients(results):
    results["networks"][0]["mode"] = "train"
    # 2 * (3 * 50 - 10) operations of an image, times 32 images/s.
    (row,) = (each for each in cells(render(results)) if each[:3:2] == ["ResNet-18", "ours"])
    assert row[1] == "training" and row[6] == f"{100 * 280 * 32 / 160:.0f} %"


def test_text_states_how_it_was_measured(results):
    text = " ".join(render(results).split())
    assert "those that waited used 50.0 % of one core" in text
    assert "other programs on the machine 3.0 %" in text
    assert "with 4 thread(s)" in text and "for 3 rounds" in text and "0.1 s apart" in text
    assert "0.25 programs were running" in text
    assert "{" not in text.replace("{load", "")


def test_what_was_not_measured_is_left_out(results):
    runs = results["networks"][0]["runs"]
    results["networks"][0]["runs"] = {"ours": runs["ours"]}
    results["loader"] = None
    page = render(results)
    assert ["ResNet-18", "inference", *["–"] * 6] in cells(page)
    assert "`PHOTOS` was not given" in page and "Pillow stands for" not in page


@pytest.mark.skipif(not (ROOT / "docs" / "benchmarks.md").exists(), reason="not measured yet")
def test_the_page_is_what_the_results_say():
    saved = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    assert (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8") == render(saved)


FAKE = """
import json, os, pathlib, sys, threading, time

log, name, seconds, behaviour = sys.argv[1:]

def note(what):
    with open(log, "a") as file:
        file.write(f"{name} {what} {os.getpid()}\\n")

def spin():
    while True:
        pass

if behaviour == "dies at once":
    sys.exit("no such\\nnetwork\\n")
if behaviour == "spins":
    threading.Thread(target=spin, daemon=True).start()
note("ready")
print("hello" if behaviour == "chats" else "ready", flush=True)
for line in sys.stdin:
    note(line.strip())
    if line == "end\\n":
        print("nothing" if behaviour == "forgets" else json.dumps({"parameters": 7, "name": name}))
        break
    if behaviour == "is killed":
        os.kill(os.getpid(), 9)
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        if behaviour != "toils":
            time.sleep(0.1)
    print("fast" if behaviour == "boasts" else seconds, flush=True)
"""


@pytest.fixture()
def fake(tmp_path):
    """Makes a configuration of a fake worker that says each step took ``seconds``."""
    script, log = tmp_path / "fake.py", tmp_path / "log"
    script.write_text(FAKE)

    def make(name, seconds=1.0, behaviour="works"):
        command = [sys.executable, str(script), str(log), name, str(seconds), behaviour]
        return Configuration(name, command)

    make.log = lambda: [line.split() for line in log.read_text().splitlines()]
    return make


def test_workers_take_turns(fake):
    found = run_in_turns([fake("A", 0.5), fake("B", 0.25), fake("C", 2)], 2, {})
    turns = [(name, what) for name, what, _ in fake.log()]
    assert turns[:3] == [(name, "ready") for name in "ABC"]
    assert turns[3:9] == [(name, "step") for name in "ABCABC"]
    assert sorted(turns[9:]) == [(name, "end") for name in "ABC"]
    assert found["runs"]["B"] == {"seconds": [0.25, 0.25], "facts": {"parameters": 7, "name": "B"}}
    assert list(found["runs"]) == ["A", "B", "C"]


def test_workers_that_do_not_sleep_are_noticed(fake):
    """The fakes claim the 0.1 s that they take; every second step has a spinning bystander."""
    working = run_in_turns([fake("A", 0.1, "toils"), fake("B", 0.1, "toils")], 5, {})
    assert working["idle_share"] < 0.1
    spinning = run_in_turns([fake("A", 0.1, "spins"), fake("B", 0.1)], 5, {})["idle_share"]
    assert 0.1 < spinning < 1


def test_cpu_time_of_the_machine():
    before, mine = machine_cpu_seconds(), time.process_time()
    while time.process_time() < mine + 0.3:
        pass
    assert machine_cpu_seconds() - before > 0.25


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("dies at once", "B: the worker ended with exit code 1: network"),
        (
            "is killed",
            "B: the worker ended with exit code -9: killed, as Linux does when memory runs out",
        ),
        ("chats", "B: expected ready from the worker, got 'hello'"),
        ("boasts", "B: expected seconds from the worker, got 'fast'"),
        ("forgets", "B: expected JSON from the worker, got 'nothing'"),
    ],
)
def test_a_worker_that_fails_gives_one_line_and_ends_the_others(fake, behaviour, message):
    with pytest.raises(UserError) as error:
        run_in_turns([fake("A"), fake("B", 1, behaviour)], 1, {})
    assert str(error.value) == message
    for _, _, pid in fake.log():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_a_program_that_is_not_there():
    with pytest.raises(UserError, match=r"^A: /none/python: No such file or directory$"):
        Worker("A", ["/none/python"], {})


def test_workers_see_the_environment(fake, tmp_path):
    script = tmp_path / "env.py"
    script.write_text("import os, sys; sys.exit(os.environ['OMP_NUM_THREADS'])")
    with pytest.raises(UserError, match="exit code 1: 17$"):
        run_in_turns(
            [Configuration("A", [sys.executable, str(script)])], 1, {"OMP_NUM_THREADS": "17"}
        )


REAL = """
import sys, time
sys.path.insert(0, {root!r})
from benchmarks import worker

server = worker.Server()
calls = iter(range(100))

def step():
    print("noise")
    time.sleep(0.05)
    return float("nan") if next(calls) == {bad} else 0.0

sys.exit(server.serve(step, 2, {{"parameters": next(calls)}}, {steps}))
"""


def real(tmp_path, bad, steps=1):
    script = tmp_path / "real.py"
    script.write_text(textwrap.dedent(REAL.format(root=str(ROOT), bad=bad, steps=steps)))
    return Configuration("A", [sys.executable, str(script)])


def test_the_workers_side(tmp_path):
    run = run_in_turns([real(tmp_path, bad=-1)], 2, {})["runs"]["A"]
    assert len(run["seconds"]) == 2 and all(0.05 <= each < 5 for each in run["seconds"])
    assert run["facts"]["parameters"] == 0
    assert 1 < run["facts"]["imported_mb"] <= run["facts"]["peak_mb"] < 1000
    assert "p99" not in run["facts"]


def test_several_steps_at_a_time_have_a_percentile(tmp_path):
    """One of the second ten is slow."""
    script = real(tmp_path, bad=-1, steps=10)
    path = Path(script.command[1])
    path.write_text(path.read_text().replace("0.05", "0.2 if next(calls) == 37 else 0.01"))
    run = run_in_turns([script], 2, {})["runs"]["A"]
    assert run["seconds"][0] >= 0.01 and run["seconds"][1] >= (9 * 0.01 + 0.2) / 10
    assert run["facts"]["p99"] >= 0.2


@pytest.mark.parametrize("bad", [2, 3])  # in the warm-up and after it
def test_a_result_that_is_not_finite_ends_the_run(tmp_path, bad):
    with pytest.raises(UserError, match="the result of a step is nan"):
        run_in_turns([real(tmp_path, bad)], 1, {})


def test_the_machine_as_numpy_and_libc_know_it():
    here, known = machine.describe(), np.core._multiarray_umath.__cpu_features__
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    assert here["memory_gb"] == pytest.approx(total, rel=0.01)
    assert 0 < machine.available_gb() < here["memory_gb"]
    for flag, name in (("avx2", "AVX2"), ("fma", "FMA3"), ("avx512f", "AVX512F")):
        assert (flag in here["flags"]) == known[name]


def test_peak_counts_what_all_threads_do():
    with Peak() as peak:
        one, two = peak.measure(1, 0.1), peak.measure(2, 0.1)
    assert one["threads"] == 1 and two["threads"] == 2
    assert one["instructions"]["fp32"] in ("AVX-512", "AVX2")
    assert (one["bf16"] is None) == (one["instructions"]["bf16"] is None)
    if one["instructions"]["bf16"] == "AMX":  # 16 times the products of AVX-512's float32
        assert 4 < one["bf16"] / one["fp32"] < 64
    for found in (one, two):  # a slow core's FMA in one chain; three GHz of two 512-bit ones, twice
        assert 0.5 < found["fp32"] < 2 * 400


def test_no_compiler(monkeypatch):
    monkeypatch.setenv("CXX", shutil.which("false"))
    with pytest.raises(UserError, match="false: it failed"), Peak():
        pass


def test_what_is_missing_is_told_before_anything_runs(capsys, tmp_path):
    assert compare.main(["--torch-python", "/none/python"]) == 2
    assert "--torch-python /none/python: no such file" in capsys.readouterr().err
    assert compare.main(["--without", "torch", "--photos", str(tmp_path)]) == 1
    assert f"benchmark: {tmp_path}/val: " in capsys.readouterr().err


def test_networks_that_differ_are_refused(fake, monkeypatch):
    odd = fake("B")
    odd.command[1] = str(Path(odd.command[1]).with_name("odd.py"))
    Path(odd.command[1]).write_text(FAKE.replace('"parameters": 7', '"parameters": 8'))
    monkeypatch.setattr(compare, "contenders", lambda *_: [fake("A"), odd])
    args = compare.parser().parse_args(["--rounds", "1", "--without", "stock", "torch"])
    with pytest.raises(UserError, match=r"differ in their parameters: {'A': 7, 'B': 8}"):
        compare.measure_network(args, "resnet18", "train", 1, {})


def test_our_workers_from_end_to_end(script, tiny_images, tmp_path):
    saved, page = tmp_path / "folder" / "results.json", tmp_path / "page.md"
    done = script(
        *("benchmarks/compare.py", "--quick", "--without", "torch", "stock", "--arch", "resnet18"),
        *("--photos", tiny_images, "--results", saved, "--document", page),
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(saved.read_text())
    assert page.read_text(encoding="utf-8") == render(results)
    modes = {group["mode"]: group["runs"]["ours"] for group in results["networks"]}
    assert list(modes) == ["inference", "train"]
    for run in modes.values():
        assert (
            run["facts"]["parameters"] == 11_689_512
        )  # He et al.'s network, as torchvision has it
        assert len(run["seconds"]) == 2
        assert 100 < run["facts"]["peak_mb"] < 4000
    photos = results["loader"]["runs"]
    kinds = ("ours", "ours, uint8", "decoding alone")
    assert [photos[kind]["facts"]["images"] for kind in kinds] == [15] * 3
    assert len(results["peak"]) % 3 == 0


@pytest.mark.parametrize("name", ["torch", "runtimes"])
def test_no_environment_for_peers_is_one_line(tmp_path, name):
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    done = subprocess.run(
        ["bash", str(tmp_path / "benchmarks" / "setup_peers.sh"), name],
        env={**os.environ, "TORCH_BASE": "/none"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines() == [
        f"benchmark: cannot make .venv-{name}: no Python with venv and ensurepip was found; "
        "TORCH_BASE=/path/to/python3 names another"
    ]


def test_runtimes_are_compared_with_the_best_of_the_others(results):
    """4 ms here; 3 and 6 ms there: three quarters of the speed of the best."""
    group = {"arch": "resnet18", "precision": "fp32", "batch": 1, "runs": {}}
    for name, seconds in (("ours", 4e-3), ("OpenVINO", 3e-3), ("torch.compile", 6e-3)):
        group["runs"][name] = run([seconds, 9.0, seconds / 2], versions={name: "1"})
    here = {"cpu": "A CPU", "cores": 2, "flags": ["avx2"]}
    found = {"date": "2024-02-29", "machine": here, "rounds": 3, "steps": 16, "busy": False}
    results["runtimes"] = {**found, "groups": [group]}
    assert "| ResNet-18 | fp32 | 1 | 4.0 | 3.0 | – | 6.0 | 0.75 |" in render(results)
    results["runtimes_busy"] = {**found, "busy": True, "groups": [group]}
    assert "while another program wanted a core all the time." in render(results)


def test_runtimes_that_are_not_there_are_named(capsys):
    assert runtimes.main(["--runtimes-python", "/none"]) == 2
    assert "--runtimes-python /none: no such file; benchmarks/setup_peers.sh runtimes" in (
        capsys.readouterr().err
    )
