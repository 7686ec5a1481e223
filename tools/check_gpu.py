#!/usr/bin/env python3
"""Check, in less than eight minutes, that a machine's GPUs compute what its CPU does, and how fast.

in the project's environment   make check-gpu
in one of your own             python tools/check_gpu.py --json gpu.json

Logits of three networks, 20 steps of training in float32 and in mixed precision, ranks that talk to
each other where there are two GPUs, the count of an evaluation, and the speeds of ResNet-50 and of
the loader. Exit code 1: something is wrong, and the table says what.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from official import startup  # noqa: E402

if __name__ == "__main__":
    startup.prepare()

from official.vision.classification.engine import flags  # noqa: E402
from official.vision.classification.engine.files import check_target, write_atomically  # noqa: E402
from official.vision.classification.text import printable  # noqa: E402

BUDGET = 460.0  # seconds for all checks
NEWEST = (7, 5)  # compute capability that the public wheel has kernels for; the oldest is 5.2
ARCHS = {"resnet20_cifar": 32, "resnet18": 224, "resnet50": 224}
STEPS = 20
IMAGES = 101  # of the evaluation: no multiple of a batch or of two ranks
# Largest differences between GPU and CPU: of logits, relative to the largest; of the loss in any of
# the steps, relative to it. Mixed precision has eleven bits where float32 has 24.
LOGITS, LOSS, LOSS_AMP, REDUCED = 1e-3, 0.02, 0.1, 1e-4
OTHER_BUILDS = "https://www.megengine.org.cn/whl/mge.html"
BUILDING = (
    "https://github.com/MegEngine/MegEngine/blob/master/scripts/whl/BUILD_PYTHON_WHL_README.md"
)


class Gpu(NamedTuple):
    """A device as MegEngine describes it."""

    name: str
    capability: Tuple[int, int]
    memory_mb: int


class Row(NamedTuple):
    """A line of the table."""

    check: str
    found: str
    verdict: str  # ok, problem, warning or skipped
    remark: str = ""


class Failed(Exception):
    """Why a check could not be made."""


class Machine:
    """What is asked of the machine; the tests have others.

    Args:
        device: "gpu", or "cpu", which takes the place of a GPU to try the checks themselves.
    """

    def __init__(self, device: str = "gpu"):
        self.device = device
        self._end = time.monotonic() + BUDGET

    def describe(self) -> Dict[str, Any]:
        """The GPUs, the driver and the wheel."""
        return self.probe("describe", self.device)

    def probe(self, name: str, *words: str) -> Dict[str, Any]:
        """Run a probe in a process of its own, since what is broken may take it along.

        Raises:
            Failed: with the last that it said.
        """
        return json.loads(self.run(__file__, "--probe", name, *words).splitlines()[-1])

    def run(self, script: str, *words: str) -> str:
        """What a script prints.

        Raises:
            Failed: when it fails, or the time is over.
        """
        left = self._end - time.monotonic()
        if left < 1:
            raise Failed("no time was left for it")
        command = [sys.executable, str(ROOT / script), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=left, cwd=ROOT)
        except subprocess.TimeoutExpired:
            raise Failed(f"no answer within {left:.0f} s") from None
        if done.returncode:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            ended = f"ended by signal {-done.returncode}" if done.returncode < 0 else ""
            raise Failed(ended or (lines[-1] if lines else f"exit code {done.returncode}"))
        return done.stdout


def check_wheel(machine: Machine, facts: Dict[str, Any]) -> List[Row]:
    """Driver, wheel and GPUs, and whether the wheel has kernels for them."""
    found = machine.describe()
    facts["machine"] = found
    gpus = [
        Gpu(each["name"], tuple(each["capability"]), each["memory_mb"]) for each in found["gpus"]
    ]
    if not gpus:
        raise Failed("no GPU that MegEngine can use; nvidia-smi tells whether there is a driver")
    rows = [Row("wheel", f"MegEngine {found['megengine']}, CUDA {found['cuda']}", "ok")]
    rows.append(Row("driver", f"for CUDA {found['driver']}", "ok"))
    for index, gpu in enumerate(gpus):
        text = f"{gpu.name}, {gpu.capability[0]}.{gpu.capability[1]}, {gpu.memory_mb:,} MB"
        remark = _too_new(gpu) if found["cuda"].startswith("10.") else ""
        rows.append(Row(f"gpu{index}", text, "warning" if remark else "ok", remark))
    return rows


def _too_new(gpu: Gpu) -> str:
    if gpu.capability <= NEWEST:
        return ""
    return (
        f"compute capability {gpu.capability[0]}.{gpu.capability[1]}: the public wheel is built "
        "with CUDA 10.1, for 5.2 to 7.5. The driver may compile its kernels anew at their first "
        "use, which takes minutes, or cannot. MegEngine's builds for CUDA 11: "
        f"{OTHER_BUILDS}; how to make one: {BUILDING}"
    )


def check_logits(machine: Machine, facts: Dict[str, Any]) -> List[Row]:
    """Three networks with the same weights on both devices."""
    rows = []
    for arch in ARCHS:
        ours = machine.probe("logits", "cpu", arch)["logits"]
        other = machine.probe("logits", machine.device, arch)["logits"]
        scale = max(abs(value) for value in ours)
        error = _largest(abs(one - two) / scale for one, two in zip(ours, other))
        facts.setdefault("logits", {})[arch] = error
        rows.append(_judged(f"logits {arch}", error, LOGITS, f"{error:.1e} of the largest"))
    return rows


def check_training(machine: Machine, facts: Dict[str, Any]) -> List[Row]:
    """The loss over some steps, against the CPU's."""
    expected = machine.probe("training", "cpu", "fp32")["losses"]
    rows = []
    for kind, limit in (("fp32", LOSS), ("amp", LOSS_AMP)):
        losses = machine.probe("training", machine.device, kind)["losses"]
        facts.setdefault("losses", {"cpu": expected})[kind] = losses
        error = _largest(abs(one - two) / two for one, two in zip(losses, expected))
        text = f"{losses[0]:.3f} to {losses[-1]:.3f}, at most {100 * error:.2f} % from the CPU's"
        rows.append(_judged(f"{len(losses)} steps {kind}", error, limit, text))
    return rows


def check_ranks(machine: Machine, facts: Dict[str, Any]) -> List[Row]:
    """All-reduce and synchronised batch normalisation over two GPUs."""
    if len(facts["machine"]["gpus"]) < 2:
        return [Row("2 ranks", "one GPU", "skipped")]
    found = machine.probe("ranks", machine.device)
    facts["ranks"] = found
    return [
        _judged(f"2 ranks: {name}", error, REDUCED, f"{error:.1e} from one process")
        for name, error in found.items()
    ]


def check_count(machine: Machine, facts: Dict[str, Any]) -> List[Row]:
    """test.py on all GPUs, up to two, against test.py on the CPU."""
    ranks = min(2, len(facts["machine"]["gpus"]))
    with tempfile.TemporaryDirectory() as folder:
        found = machine.probe("draw", folder)
        results: List[Dict[str, Any]] = []
        for device, count in ((machine.device, ranks), ("cpu", 1)):
            target = str(Path(folder) / f"{len(results)}.json")
            machine.run(
                *("test.py", "--data", folder, "--arch", "resnet20_cifar", "--json", target),
                *("--device", device, "--ngpus", str(count), "-b", "16", "-j", "1"),
            )
            results.append(json.loads(Path(target).read_text()))
    facts["evaluation"] = results
    total, top1, other = results[0]["total"], results[0]["top1"], results[1]["top1"]
    text = f"{total} of {found['images']} images on {ranks} rank(s), top-1 {top1}, CPU {other}"
    same = total == found["images"] and abs(top1 - other) <= 100 / found["images"] + 1e-6
    return [Row("evaluation", text, "ok" if same else "problem")]


def check_speed(machine: Machine, facts: Dict[str, Any]) -> List[Row]:
    """Images/s of ResNet-50 and of the loader, and how much of the loader training would use."""
    small = machine.device == "cpu"
    words = ["--arch", "resnet20_cifar" if small else "resnet50", "--rounds", "1" if small else "3"]
    words += ["--batch-size", "4" if small else "64", "--seconds", "0.1" if small else "1"]
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder) / "speed.json")
        machine.run("tools/benchmark.py", *words, "--device", machine.device, "--json", target)
        rows = json.loads(Path(target).read_text())["rows"]
    speeds = {row["what"]: row["images_per_second"] for row in rows}
    facts["images_per_second"] = speeds
    table = [
        Row(f"speed {row['what']}", f"{row['images_per_second']:.0f} images/s", "ok")
        for row in rows
    ]
    share = speeds["training"] / speeds["loader"]
    remark = "" if share < 1 else "the loader is slower than the GPU: more --workers, or --size 256"
    text = f"training takes {100 * share:.0f} % of what it brings to {os.cpu_count()} core(s)"
    return [*table, Row("loader", text, "warning" if remark else "ok", remark)]


def _largest(errors: Iterable[float]) -> float:
    """The largest of them, or NaN where one is: for ``max`` it depends on which comes first."""
    return max(errors, key=lambda error: (error != error, error))


def _judged(check: str, error: float, limit: float, text: str) -> Row:
    fine = error <= limit  # false for NaN
    return Row(check, text, "ok" if fine else "problem", "" if fine else f"expected {limit:g}")


CHECKS: Tuple[Callable[[Machine, Dict[str, Any]], List[Row]], ...] = (
    *(check_wheel, check_logits, check_training, check_ranks, check_count, check_speed),
)


def check_all(machine: Machine) -> Tuple[List[Row], Dict[str, Any]]:
    """All rows, and the figures behind them; without a GPU the first row alone."""
    rows: List[Row] = []
    facts: Dict[str, Any] = {}
    for check in CHECKS:
        name = check.__name__[len("check_") :]
        started = time.monotonic()
        try:
            rows += check(machine, facts)
        except (Failed, KeyError, ValueError, OSError) as error:
            rows.append(Row(name, str(error) or type(error).__name__, "problem"))
            if check is check_wheel:
                break
        facts.setdefault("seconds", {})[name] = round(time.monotonic() - started, 1)
    return rows, facts


def table(rows: Sequence[Row]) -> List[str]:
    """The rows below each other, and what there is to say of them."""
    widths = [max(len(row[place]) for row in rows) for place in range(2)]
    lines = [
        printable(f"{row.check:<{widths[0]}}  {row.found:<{widths[1]}}  {row.verdict}")
        for row in rows
    ]
    remarks = [f"{row.verdict}: {row.check}: {row.remark}" for row in rows if row.remark]
    count = sum(row.verdict == "problem" for row in rows)
    verdict = f"{count} problem{'s'[: count > 1]}" if count else "ready"
    return [*lines, *map(printable, dict.fromkeys(remarks)), f"check-gpu: {verdict}"]


# What runs in processes of its own


def probe_describe(device: str) -> Dict[str, Any]:
    """The GPUs as MegEngine sees them; for "cpu" one that is none."""
    import megengine

    from official.vision.classification.engine.device import count_gpus

    if device == "cpu":
        gpus = [{"name": "CPU", "capability": [0, 0], "memory_mb": 0}]
        return {"gpus": gpus, "megengine": megengine.__version__, "cuda": "none", "driver": "none"}
    gpus = []
    for index in range(count_gpus()):
        each = megengine.get_cuda_device_property(index)
        memory = int(each.total_memory) >> 20
        gpus.append(
            {"name": each.name, "capability": [each.major, each.minor], "memory_mb": memory}
        )
    driver = _version(megengine.get_cuda_driver_version) if gpus else "none"
    cuda = _version(megengine.get_cuda_version)
    return {"gpus": gpus, "megengine": megengine.__version__, "cuda": cuda, "driver": driver}


def _version(ask: Callable[[], int]) -> str:
    """CUDA's number for a version, 10010 for 10.1."""
    number = ask()
    return f"{number // 1000}.{number % 1000 // 10}" if number > 0 else "unknown"


def probe_logits(device: str, arch: str) -> Dict[str, Any]:
    """Logits of two images of noise, with weights that are the same on every device."""
    import megengine
    import numpy as np

    model = _seeded(arch, device)
    model.eval()
    size = ARCHS[arch]
    images = np.random.default_rng(1).standard_normal((2, 3, size, size), np.float32)
    return {"logits": model(megengine.Tensor(images)).numpy().ravel().tolist()}


def probe_training(device: str, precision: str) -> Dict[str, Any]:
    """The losses of a few updates on random images, whose labels can be learnt."""
    import numpy as np

    from official.vision.classification.data.loader import Batch
    from official.vision.classification.engine.recipe import load_recipe, override
    from official.vision.classification.training.step import TrainingStep

    changes = {"batch_size": 32, "arch": "resnet20_cifar", "amp.enabled": precision == "amp"}
    recipe = override(load_recipe("default"), changes)
    update = TrainingStep(_seeded("resnet20_cifar", device), recipe, 0, device)
    rng, losses = np.random.default_rng(2), []
    for step in range(STEPS):
        labels = rng.integers(0, 10, 32).astype(np.int32)
        images = rng.integers(0, 100, (32, 3, 32, 32)) + 15 * labels[:, None, None, None]
        batch = Batch(images.astype(np.uint8), labels, np.arange(32))
        losses.append(float(update(batch, step, 0.01).numpy()[0]))
    return {"losses": losses}


def _seeded(arch: str, device: str) -> Any:
    """A network whose weights come from numpy: every device would draw others."""
    import numpy as np

    from official.vision.classification.engine.device import prepare, use_device
    from official.vision.classification.zoo.models import get_model

    use_device(device)
    model = get_model(arch)
    rng, state = np.random.default_rng(0), {}
    for name, value in model.state_dict().items():
        if value.ndim > 1 and name.endswith("weight") and value.size > value.shape[0]:
            fan_in = value.size / value.shape[0]
            value = rng.normal(0, np.sqrt(2 / fan_in), value.shape).astype(np.float32)
        elif name.endswith("bias"):
            value = np.zeros_like(value)  # the classifier's would be drawn
        state[name] = value
    model.load_state_dict(state)
    return prepare(model, device)


def probe_ranks(device: str) -> Dict[str, Any]:
    """Errors of collectives over two ranks against numpy, the larger of both ranks."""
    import tools.check_gpu as this
    from official.vision.classification.distributed.launch import Topology, launch

    with tempfile.TemporaryDirectory() as folder:
        launch(this.work_of_rank, Topology(ngpus=2), device, folder, device_type=device)
        found = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    return {name: _largest(each[name] for each in found) for name in found[0]}


def work_of_rank(device: str, folder: str) -> int:
    """What each rank computes: a sum over both, and a normalisation of both halves of a batch."""
    import megengine.module as M
    import numpy as np
    from megengine import Tensor

    from official.vision.classification.distributed.collectives import rank, sum_over_ranks
    from official.vision.classification.engine.device import use_device

    use_device(device)
    values = np.random.default_rng(3).standard_normal((2, 8, 4, 5, 5), np.float32)
    total = sum_over_ranks(values[rank()])
    layer = M.SyncBatchNorm(4)
    layer.train()
    both = np.concatenate(values)
    mean, var = both.mean((0, 2, 3), keepdims=True), both.var((0, 2, 3), keepdims=True)
    expected = (values[rank()] - mean) / np.sqrt(var + layer.eps)
    errors = {
        "all-reduce": float(np.abs(total - values.sum(0)).max()),
        "SyncBN": float(np.abs(layer(Tensor(values[rank()])).numpy() - expected).max()),
    }
    (Path(folder) / f"{rank()}.json").write_text(json.dumps(errors))
    return 0


def probe_draw(folder: str) -> Dict[str, Any]:
    """A few images of noise in the classes of CIFAR-10."""
    import cv2
    import numpy as np

    from official.vision.classification.zoo.classes import class_names

    names = list(class_names("CIFAR-10"))
    rng = np.random.default_rng(4)
    for index in range(IMAGES):
        place = Path(folder) / "val" / names[index % len(names)]
        place.mkdir(parents=True, exist_ok=True)
        image = rng.integers(0, 256, (4, 4, 3), np.uint8)
        cv2.imwrite(str(place / f"{index}.png"), cv2.resize(image, (32, 32)))
    return {"images": IMAGES}


PROBES: Dict[str, Callable[..., Dict[str, Any]]] = {
    "describe": probe_describe,
    "logits": probe_logits,
    "training": probe_training,
    "ranks": probe_ranks,
    "draw": probe_draw,
}


def parser() -> flags.Parser:
    """The command line."""
    parser = flags.Parser("check_gpu.py", __doc__)
    parser.add_argument(
        "--json", metavar="FILE", help="write the table and its figures to a JSON file"
    )
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help=argparse.SUPPRESS)
    parser.add_argument("--probe", nargs="+", help=argparse.SUPPRESS)
    return parser


def start(args: argparse.Namespace) -> int:
    """Check as the flags say."""
    if args.probe:
        sys.stdout.write(json.dumps(PROBES[args.probe[0]](*args.probe[1:])) + "\n")
        return 0
    if args.json:
        check_target("--json", Path(args.json))
    rows, facts = check_all(Machine(args.device))
    sys.stdout.write("\n".join(table(rows)) + "\n")
    if args.json:
        found = {"rows": [row._asdict() for row in rows], **facts}
        write_atomically(Path(args.json), (json.dumps(found, indent=1) + "\n").encode())
    return int(any(row.verdict == "problem" for row in rows))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the script; return its exit code."""
    return flags.run(parser(), start, argv)


if __name__ == "__main__":
    sys.exit(main())
