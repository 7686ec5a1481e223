"""tools/check_gpu.py: its verdicts on machines that are made up, and its probes on the CPU."""

import copy
import json
from pathlib import Path

import pytest

from tests.scripts import load_script

pytestmark = pytest.mark.timeout(200)

GPU = {"name": "Tesla T4", "capability": [7, 5], "memory_mb": 15109}
NEW = {"name": "NVIDIA H200", "capability": [9, 0], "memory_mb": 143771}
WHEEL = {"gpus": [GPU, GPU], "megengine": "1.13.0", "cuda": "10.1", "driver": "12.4"}


@pytest.fixture(scope="module")
def tool():
    return load_script("tools/check_gpu.py")


class Fake:
    """A machine that answers as it is told; by default as a sound one with two GPUs would."""

    device = "gpu"

    def __init__(self, **changes):
        self.asked = []
        self.answers = {
            "describe": WHEEL,
            "logits cpu": {"logits": [1.0, -4.0]},
            "logits gpu": {"logits": [1.001, -4.0]},
            "training cpu fp32": {"losses": [2.0, 1.0]},
            "training gpu fp32": {"losses": [2.0, 1.01]},
            "training gpu amp": {"losses": [2.1, 1.05]},
            "ranks gpu": {"all-reduce": 0.0, "SyncBN": 1e-6},
            "draw": {"images": 101},
            "gpu": {"total": 101, "top1": 10.0},
            "cpu": {"total": 101, "top1": 10.9},
            "speed": {"inference": 900.0, "training": 300.0, "loader": 700.0},
            **changes,
        }

    def answer(self, *words):
        self.asked.append(" ".join(words))
        for count in range(len(words), 0, -1):
            found = self.answers.get(" ".join(words[:count]))
            if isinstance(found, Exception):
                raise found
            if found is not None:
                return copy.deepcopy(found)
        raise AssertionError(words)

    def describe(self):
        return self.answer("describe")

    def probe(self, *words):
        return self.answer(*words)

    def run(self, script, *words):
        target = words[words.index("--json") + 1]
        if script == "test.py":
            found = self.answer(words[words.index("--device") + 1])
            self.asked.append(f"{words[words.index('--ngpus') + 1]} rank(s)")
        else:
            speeds = self.answer("speed")
            rows = [{"what": what, "images_per_second": speeds[what]} for what in speeds]
            found = {"rows": rows}
        Path(target).write_text(json.dumps(found))
        return ""


def verdicts(tool, **changes):
    rows, facts = tool.check_all(Fake(**changes))
    return {row.check: row for row in rows}, facts


def problems(tool, **changes):
    rows, _ = verdicts(tool, **changes)
    return {name for name, row in rows.items() if row.verdict == "problem"}


def test_a_sound_machine(tool):
    machine = Fake()
    rows, facts = tool.check_all(machine)
    assert {row.verdict for row in rows} == {"ok"}
    assert [row.check for row in rows] == [
        *("wheel", "driver", "gpu0", "gpu1"),
        *("logits resnet20_cifar", "logits resnet18", "logits resnet50"),
        *("2 steps fp32", "2 steps amp", "2 ranks: all-reduce", "2 ranks: SyncBN", "evaluation"),
        *("speed inference", "speed training", "speed loader", "loader"),
    ]
    assert "2 rank(s)" in machine.asked and "1 rank(s)" in machine.asked
    assert facts["logits"]["resnet18"] == pytest.approx(0.001 / 4)
    text = "\n".join(tool.table(rows))
    assert "training takes 43 % of what it brings" in text and text.endswith("check-gpu: ready")
    assert json.loads(json.dumps(facts))["losses"]["amp"] == [2.1, 1.05]


def test_one_gpu(tool):
    rows, _ = verdicts(tool, describe={**WHEEL, "gpus": [GPU]})
    assert rows["2 ranks"].verdict == "skipped" and "1 rank(s)" in rows["evaluation"].found


def test_without_a_gpu_nothing_else_is_tried(tool):
    machine = Fake(describe={**WHEEL, "gpus": []})
    (row,), _ = tool.check_all(machine)
    assert row.verdict == "problem" and "no GPU that MegEngine can use" in row.found
    assert machine.asked == ["describe"]


@pytest.mark.parametrize(("cuda", "gpu", "told"), [("10.1", NEW, True), ("11.8", NEW, False)])
def test_gpus_that_the_wheel_has_no_kernels_for(tool, cuda, gpu, told):
    rows, _ = verdicts(tool, describe={**WHEEL, "cuda": cuda, "gpus": [GPU, gpu]})
    assert rows["gpu0"].verdict == "ok"
    assert (rows["gpu1"].verdict == "warning") == told
    text = "\n".join(tool.table(list(rows.values())))
    assert ("compute capability 9.0: the public wheel is built" in text) == told
    assert (tool.OTHER_BUILDS in text and tool.BUILDING in text) == told


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"logits gpu resnet18": {"logits": [1.1, -4.0]}}, {"logits resnet18"}),
        ({"logits gpu resnet50": {"logits": [float("nan"), -4.0]}}, {"logits resnet50"}),
        ({"training gpu fp32": {"losses": [2.0, 1.03]}}, {"2 steps fp32"}),
        ({"training gpu amp": {"losses": [2.0, 1.2]}}, {"2 steps amp"}),
        ({"training gpu amp": {"losses": [2.0, float("nan")]}}, {"2 steps amp"}),
        ({"ranks gpu": {"all-reduce": 1.0, "SyncBN": 0.0}}, {"2 ranks: all-reduce"}),
        ({"ranks gpu": {"all-reduce": 0.0, "SyncBN": 1e-3}}, {"2 ranks: SyncBN"}),
        ({"gpu": {"total": 102, "top1": 10.0}}, {"evaluation"}),
        ({"gpu": {"total": 101, "top1": 50.0}}, {"evaluation"}),
    ],
)
def test_what_is_wrong_is_found(tool, changes, expected):
    assert problems(tool, **changes) == expected


def test_a_loader_that_is_too_slow(tool):
    rows, _ = verdicts(tool, speed={"training": 300.0, "loader": 200.0})
    assert rows["loader"].verdict == "warning" and "more --workers" in rows["loader"].remark


def test_a_check_that_cannot_be_made_leaves_the_others(tool):
    changes = {
        "logits": tool.Failed("ended by signal 11"),
        "ranks": tool.Failed("no answer within 3 s"),
        "logits cpu": tool.Failed("ended by signal 11"),
        "ranks gpu": tool.Failed("no answer within 3 s"),
        "speed": {"training": 1.0},
    }
    rows, _ = verdicts(tool, **changes)
    assert rows["logits"].found == "ended by signal 11"
    assert rows["ranks"].found == "no answer within 3 s" and rows["speed"].found == "'loader'"
    assert rows["evaluation"].verdict == rows["2 steps amp"].verdict == "ok"
    assert tool.table(list(rows.values()))[-1] == "check-gpu: 3 problems"


def test_names_that_would_steer_a_terminal(tool):
    rows, _ = verdicts(tool, describe={**WHEEL, "gpus": [{**GPU, "name": "\x1b[31m"}]})
    assert "\x1b" not in "\n".join(tool.table(list(rows.values())))


def test_the_script(tool, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tool, "Machine", lambda device: Fake())
    assert tool.main(["--json", str(tmp_path / "gpu.json")]) == 0
    assert json.loads((tmp_path / "gpu.json").read_text())["rows"][0]["check"] == "wheel"
    monkeypatch.setattr(tool, "Machine", lambda device: Fake(describe={**WHEEL, "gpus": []}))
    assert tool.main([]) == 1
    assert capsys.readouterr().out.endswith("check-gpu: 1 problem\n")


# The probes themselves, with the CPU in the place of a GPU


def test_processes_that_end_badly(tool, tmp_path):
    script = tmp_path / "script.py"
    machine = tool.Machine("cpu")
    for body, reason in (
        ("import sys; sys.exit('why it failed')", "why it failed"),
        ("import os; os.kill(os.getpid(), 11)", "ended by signal 11"),
        ("import os; os._exit(3)", "exit code 3"),
    ):
        script.write_text(body)
        with pytest.raises(tool.Failed, match=reason):
            machine.run(str(script))
    script.write_text("import time; time.sleep(100)")
    machine._end = tool.time.monotonic() + 1.5
    with pytest.raises(tool.Failed, match="no answer within"):
        machine.run(str(script))
    with pytest.raises(tool.Failed, match="no time was left"):
        machine.run(str(script))


def test_probes_in_processes_of_their_own(tool):
    found = tool.Machine("cpu").describe()
    assert found["gpus"] == [{"name": "CPU", "capability": [0, 0], "memory_mb": 0}]


def test_logits_do_not_depend_on_the_process(tool):
    first = tool.probe_logits("cpu", "resnet20_cifar")["logits"]
    assert first == tool.probe_logits("cpu", "resnet20_cifar")["logits"]
    assert len(first) == 20 and len(set(first)) == 20


@pytest.mark.parametrize("precision", ["fp32", "amp"])
def test_training_learns(tool, precision):
    losses = tool.probe_training("cpu", precision)["losses"]
    assert len(losses) == tool.STEPS and sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_two_ranks(tool):
    found = tool.probe_ranks("cpu")
    assert set(found) == {"all-reduce", "SyncBN"}
    assert 0 <= found["all-reduce"] < 1e-6 and 0 < found["SyncBN"] < 1e-5


def test_drawn_images(tool, tmp_path):
    assert tool.probe_draw(str(tmp_path)) == {"images": 101}
    files = list(tmp_path.rglob("*.png"))
    assert len(files) == 101 and len({path.parent for path in files}) == 10


@pytest.mark.parametrize(("number", "text"), [(10010, "10.1"), (11080, "11.8"), (-1, "unknown")])
def test_versions_of_cuda(tool, number, text):
    assert tool._version(lambda: number) == text
