"""tools/benchmark.py: its rows, its arithmetic, and a run from end to end on tiny images."""

import json
import os
import shutil
import statistics
import time

import megengine
import pytest

from benchmarks import worker_own
from official.vision.classification.data.folder import load_split
from official.vision.classification.engine.recipe import load_recipe
from official.vision.classification.errors import UsageError
from tests.scripts import load_script


@pytest.fixture()
def benchmark():
    return load_script("tools/benchmark.py")


def parsed(benchmark, *words):
    return benchmark.parser().parse_args([str(word) for word in words])


def test_rows(benchmark):
    args = parsed(benchmark, "--arch", "resnet18", "resnet20_cifar", "-b", 1, 8)
    found = [tuple(case) for case in benchmark.cases(args)]
    assert found == [
        ("inference", "resnet18", 1, 224),
        ("inference", "resnet18", 8, 224),
        ("training", "resnet18", 1, 224),
        ("training", "resnet18", 8, 224),
        ("inference", "resnet20_cifar", 1, 32),
        ("inference", "resnet20_cifar", 8, 32),
        ("training", "resnet20_cifar", 1, 32),
        ("training", "resnet20_cifar", 8, 32),
        ("loader", "", 1, 224),
        ("loader", "", 8, 224),
        ("loader", "", 1, 32),
        ("loader", "", 8, 32),
    ]
    args = parsed(benchmark, "--arch", "resnet18_8xb32_in1k", "--size", 64, "--only", "training")
    assert [tuple(case) for case in benchmark.cases(args)] == [("training", "resnet18", 16, 64)]
    with pytest.raises(UsageError, match="resnet19"):
        list(benchmark.cases(parsed(benchmark, "--arch", "resnet19")))


@pytest.fixture()
def measured(benchmark, monkeypatch):
    """What becomes of three rounds of 5 batches, of 2, 1 and 4 seconds."""
    facts = {"batches": 5, "peak_mb": 321.0, "kernels": "some", "versions": {"X": "1"}}
    calls = []

    def run_in_turns(configurations, rounds, environment):
        (configuration,) = configurations
        calls.append((configuration, rounds, environment))
        run = {"seconds": [2.0, 1.0, 4.0], "facts": facts}
        return {"runs": {configuration.name: run}, "others_share": 0.25, "idle_share": 0.0}

    monkeypatch.setattr(benchmark, "run_in_turns", run_in_turns)
    case = benchmark.Case("training", "resnet18", 8, 64)

    def measure(*words, **more):
        facts.update(more)
        return benchmark.measure(case, parsed(benchmark, *words), "cpu", "there")

    measure.calls = calls
    return measure


def test_arithmetic(benchmark, measured):
    """8 images times 5 batches in 2 s are 20 images/s, and 400 ms for a batch."""
    row = measured("--threads", 3, "--rounds", 9, "--precision", "bf16")
    assert (row["images_per_second"], row["ms_per_batch"]) == (20.0, 400.0)
    assert row["deviation"] == pytest.approx(statistics.stdev([20, 40, 10]))
    assert row["memory_mb"] == 321.0
    ((configuration, rounds, environment),) = measured.calls
    assert (rounds, environment) == (9, {"OMP_NUM_THREADS": "3"})
    flags = dict(zip(configuration.command[2::2], configuration.command[3::2]))
    assert (flags["--what"], flags["--arch"], flags["--batch"]) == ("training", "resnet18", "8")
    assert (flags["--size"], flags["--precision"], flags["--data"]) == ("64", "bf16", "there")
    assert measured(gpu_peak_mb=99.0)["memory_mb"] == 99.0
    assert measured.calls[1][2] == {}


def test_table_and_notes(benchmark, measured):
    row = measured()
    head, body = benchmark.head(14), benchmark.body(row, 14)
    assert body.split() == ["training", "resnet18", "8", "64", "20.0", "15.3", "400.0", "321"]
    for name, cell in (("images/s", "20.0"), ("memory (MB)", "321"), ("px", "64")):
        assert head.index(name) + len(name) == body.index(cell) + len(cell)
    here = {"cpu": "A CPU", "cores": 4, "memory_gb": 16.04, "system": "Linux 6", "python": "3.8"}
    lines = benchmark.notes([row, row], here, "drawn")
    assert lines[0] == "machine: A CPU, 4 core(s), 16.0 GB, Linux 6"
    assert lines[1] == "kernels: some"
    assert lines[2] == f"versions: Python 3.8, X 1, this {benchmark.__version__}"
    assert lines[3].startswith("other programs used 25 % of a core")
    quiet = {**row, "others_share": 0.01, "what": "loader"}
    assert benchmark.notes([quiet], here, "drawn")[3:] == ["loader: drawn"]


def test_rounds_take_the_time_they_should():
    assert 5 <= worker_own.warm_up(lambda batches: time.sleep(0.02), 2, 0.2) <= 10
    assert worker_own.warm_up(lambda batches: time.sleep(0.02), 1, 0.001) == 1
    assert worker_own.warm_up(lambda batches: None, 1, 9.0) == worker_own.MOST_BATCHES


def arguments(**changes):
    words = "--what loader --recipe default --batch 4 --size 16 --device cpu --precision fp32"
    words += " --warmup 1 --seconds 1 --arch resnet20_cifar"
    args = worker_own.parser().parse_args(words.split())
    vars(args).update(changes)
    return args


def test_the_loader_reads_other_images_every_time(tiny_images, monkeypatch):
    seen = []

    class Spy(worker_own.Loader):
        def _load(self, epoch, indices, copies):
            seen.append((epoch, indices.tolist()))
            return super()._load(epoch, indices, copies)

    monkeypatch.setattr(worker_own, "Loader", Spy)
    facts = {}
    job = worker_own.loading(arguments(data=str(tiny_images)), load_recipe("default"), facts)
    assert (job(2), job(4)) == (8.0, 16.0)
    assert sorted(index for epoch, indices in seen for index in indices) == list(range(24))
    assert facts["kernels"] == "OpenCV, 0 thread(s)"


def test_training_updates_the_weights_once_for_every_batch(monkeypatch):
    updates = []

    class Spy(worker_own.TrainingStep):
        def __call__(self, batch, step, rate):
            before = self.model.fc.weight.numpy()
            result = super().__call__(batch, step, rate)
            changed = bool((before != self.model.fc.weight.numpy()).any())
            updates.append((step, len(batch), batch.images.shape[2:], changed))
            return result

    monkeypatch.setattr(worker_own, "TrainingStep", Spy)
    job = worker_own.training(arguments(), load_recipe("default"), {})
    assert 0 < job(2) < 20 and job(1) > 0
    assert updates == [(step, 4, (16, 16), True) for step in range(3)]


def test_inference_is_in_evaluation_mode(monkeypatch):
    calls = []
    build = worker_own.get_model

    def get_model(name):
        model = build(name)
        forward = model.forward
        model.forward = lambda x: calls.append((model.training, x.shape)) or forward(x)
        return model

    monkeypatch.setattr(worker_own, "get_model", get_model)
    facts = {}
    job = worker_own.inference(arguments(), load_recipe("default"), facts)
    job(3)
    assert calls == [(False, (4, 3, 16, 16))] * 3
    assert facts["versions"]["MegEngine"] == megengine.__version__


def test_drawn_images(benchmark, tmp_path):
    benchmark.draw_images(tmp_path, 25, size=48)
    folder = load_split(str(tmp_path), "train")
    assert (len(folder), len(folder.classes)) == (25, 10)
    assert {folder.read(index).shape for index in range(25)} == {(48, 48, 3)}
    assert {path.rsplit(".")[-1] for path in folder.paths} == {"jpg"}


TINY = ("--arch", "resnet20_cifar", "-b", 2, "--size", 16, "--rounds", 2, "--seconds", 0.01)


def test_from_end_to_end(script, tiny_images, tmp_path):
    saved = tmp_path / "result.json"
    done = script(
        *("tools/benchmark.py", *TINY, "--device", "cpu", "--data", tiny_images),
        *("--json", saved, "--threads", 1, "--workers", 1),
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    result = json.loads(saved.read_text())
    assert [row["what"] for row in result["rows"]] == ["inference", "training", "loader"]
    assert (result["device"], result["threads"], result["precision"]) == ("cpu", 1, "fp32")
    lines = done.stdout.splitlines()
    for row, shown in zip(result["rows"], lines[1:4]):
        images = 2 * row["batches_per_round"]
        assert len(row["seconds"]) == 2 and all(0 < each < 60 for each in row["seconds"])
        speed = images / statistics.median(row["seconds"])
        assert row["images_per_second"] == pytest.approx(speed)
        assert 50 < row["memory_mb"] < 4000
        assert shown.split()[0] == row["what"]
        assert shown.split()[-1] == f"{row['memory_mb']:.0f}"
    assert "kernels" in result["rows"][0]["kernels"]
    assert f"loader: {tiny_images}" in lines
    assert f"MegEngine {megengine.__version__}" in done.stdout


def test_an_image_that_cannot_be_read(script, tiny_images, tmp_path):
    shutil.copytree(tiny_images, tmp_path / "data")
    for path in (tmp_path / "data" / "train").rglob("*.png"):
        path.write_bytes(b"no picture")
    words = ("--device", "cpu", "--data", tmp_path / "data", "--only", "loader", "--workers", 1)
    done = script("tools/benchmark.py", *TINY, *words)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("benchmark.py: error: loader batch 2: the worker ended with exit code 1")
    assert str(tmp_path / "data" / "train") in line
    assert len(done.stdout.splitlines()) == 1


def test_a_row_that_fails_does_not_end_the_others(script, tiny_images):
    words = ("--device", "cpu", "--data", tiny_images, "--only", "inference", "loader")
    environment = {**os.environ, "RESNET_KERNELS": "megengine"}
    done = script("tools/benchmark.py", *TINY, *words, "--precision", "bf16", env=environment)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("benchmark.py: error: inference resnet20_cifar batch 2: ")
    assert "precision bf16 needs the native kernels" in line
    assert done.stdout.splitlines()[1].startswith("loader ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--arch resnet19", "resnet19"),
        ("--config nowhere.yaml", "nowhere.yaml"),
        ("--data /none", "/none"),
        ("--json /none/file.json", "--json /none/file.json"),
        ("--device gpu", "--device gpu: no GPU"),
    ],
)
def test_what_cannot_be_is_told_at_once(benchmark, capsys, monkeypatch, words, message):
    monkeypatch.setattr(benchmark, "measure", None)
    monkeypatch.setattr("official.vision.classification.engine.device.count_gpus", lambda: 0)
    assert benchmark.main(words.split()) in (1, 2)
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("benchmark.py: error: ") and message in line
    assert captured.out == ""
