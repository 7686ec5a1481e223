#!/usr/bin/env python3
"""docs/benchmarks.md from benchmarks/results.json.

python benchmarks/report.py benchmarks/results.json docs/benchmarks.md
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import summary  # noqa: E402

FP32_PEERS = ("PyTorch, NCHW", "PyTorch, channels_last")
STOCK = ("stock MegEngine", "stock MegEngine, multithread")
NAMES = {"resnet18": "ResNet-18", "resnet50": "ResNet-50", "train": "training"}
NONE = "–"
RUNTIME_NAMES = ("ours", "OpenVINO", "ONNX Runtime", "torch.compile")

PAGE = """# Speed on a CPU

**English** | [简体中文](zh/benchmarks.md)

This repository against stock MegEngine and against PyTorch eager, on the same cores in the same
run. This page is written by `make benchmark`, and so is
[`benchmarks/results.json`](../benchmarks/results.json), which has the seconds of every step.

## The machine

{machine}

Multiply-adds between registers ([`fma_peak.cpp`](../benchmarks/fma_peak.cpp)), medians of {peaks}
measurements before, between and after the others:

{peak}

## Ratios

Of medians; above 1 means that this repository is faster, but for memory below 1 that it needs less.
"PyTorch fp32" is the better of its NCHW and channels_last for every figure by itself. "Stock" is
MegEngine on its default device for CPUs, which has one thread, "stock, best" the better of that and
its multithreaded one.

{ratios}

## Networks

Batches of {batch} images of {size} pixels. "Of peak" is the arithmetic of convolutions and linear
layers (`resnet/complexity.py`; training counts three forward passes less the gradient of the
images) over all the time of a step, as a share of the peak of all cores in the configuration's
precision; Winograd's algorithm does with fewer operations than are counted, so it can exceed that.
Peak memory is that of the process, libraries included. Where the time of a step goes, by operation
and layer, `python benchmarks/layers.py` measures.

{networks}

A step of inference is a forward pass in evaluation mode without gradients, its logits on the host.
A step of training is forward, cross-entropy, backward and SGD with momentum 0.9 and weight decay
1e-4, its loss on the host. Images and labels are random, made beforehand and the same at every
step; PyTorch's are in channels_last already where its network is. bf16 is `--precision bf16` here
and `torch.autocast` with channels_last there.

Every configuration is a process of its own with {threads} thread(s), PyTorch's interpreter being
another. All are warmed up by {warmup} step(s) and then take turns for {rounds} rounds, one step
each, {pause:g} s apart, so that the threads of the one before have gone to sleep. While one ran,
those that waited used {idle} of one core, and other programs on the machine {others}, at most.
Stock MegEngine is measured after the others, alone: its training after no warm-up, its inference
after one step.

{runtimes}## Loader

{loader}

## Repeat it

<!-- not checked: takes a quarter of an hour, and makes an environment with PyTorch -->
```bash
make benchmark
make benchmark PHOTOS=data/imagenet
taskset -c 0-3 make benchmark
```

The first makes `.venv` and `.venv-torch` when they are not there, and leaves the loader out. The
second takes the photographs in `val/` for it. The third measures on four cores. The machine should
do nothing else meanwhile: {load:.2f} programs were running when this run began.
"""

LOADER = """{images} photographs on one core each: read, decode, RandomResizedCrop to 224 pixels,
flip, normalise, stack to batches of {batch}. A step is one pass over all of them; rounds and pauses
are those of the networks. "ours" normalises by this repository's kernel, as training on a CPU does;
"ours, uint8" stops before that, as the loader's threads do. `megengine.data` runs the transforms of
MegEngine/Models in its DataLoader without processes of its own. Pillow stands for torchvision: the
same operations on Pillow's images, then on PyTorch's tensors. Pillow's bilinear resizing averages
over all pixels that it covers; OpenCV's, which the others use, does not. "decoding alone" is
`cv2.imdecode` of the same files, read beforehand: what no loader that uses it can exceed.

{table}"""


RUNTIMES = """## Inference beside OpenVINO, ONNX Runtime and torch.compile

On {cores} cores of {cpu} ({flags}), {date}: {versions}. Milliseconds for a batch, medians of
{rounds} rounds in turns as above (of batches of one image a round is the mean of {steps}, and the
99th percentile of all of them is in brackets); "ratio" is the best of the others' medians over
ours, so that above 1 this repository is faster. Weights are random, int8 is calibrated by each with
its own tool. OpenVINO has its latency hint, PyTorch channels_last and frozen weights.

{table}

"""

BUSY = """### Beside another program

The same on {date}, while another program wanted a core all the time.

{table}

"""


def _runtimes(results: Dict[str, Any]) -> str:
    """The section of runtimes.py, if it has run; beside a busy program, if it has so, too."""
    sections: List[str] = []
    for name in ("runtimes", "runtimes_busy"):
        if name not in results:
            continue
        found = results[name]
        versions: Dict[str, str] = {}
        for group in found["groups"]:
            for run in group["runs"].values():
                versions.update(run["facts"]["versions"])
        text = (BUSY if found["busy"] else RUNTIMES).format(
            cores=found["machine"]["cores"],
            cpu=found["machine"]["cpu"],
            flags=", ".join(found["machine"]["flags"]),
            date=found["date"],
            versions=", ".join(f"{each} {versions[each]}" for each in sorted(versions)),
            rounds=found["rounds"],
            steps=found["steps"],
            table=runtimes_table(found),
        )
        sections.append(text)
    return "".join(sections)


def runtimes_table(found: Dict[str, Any]) -> str:
    """A row for each network, precision and batch."""
    rows = []
    for group in found["groups"]:
        times = {
            name: 1e3 * statistics.median(run["seconds"]) for name, run in group["runs"].items()
        }
        told = {
            name: f"{times[name]:.1f}{_percentile(run['facts'])}"
            for name, run in group["runs"].items()
        }
        best = min(value for name, value in times.items() if name != "ours")
        rows.append(
            [
                NAMES.get(group["arch"], group["arch"]),
                group["precision"],
                str(group["batch"]),
                *(told.get(name, NONE) for name in RUNTIME_NAMES),
                f"{best / times['ours']:.2f}",
            ]
        )
    return table(["network", "precision", "batch", *RUNTIME_NAMES, "ratio"], rows)


def _percentile(facts: Dict[str, Any]) -> str:
    return f" ({1e3 * facts['p99']:.1f})" if "p99" in facts else ""


def render(results: Dict[str, Any]) -> str:
    """The page for what compare.py has measured."""
    groups = results["networks"]
    shares = [*groups, *([results["loader"]] if results["loader"] else [])]
    return PAGE.format(
        machine=_machine(results),
        peaks=len(results["peak"]) // len({each["threads"] for each in results["peak"]}),
        peak=_peak(results),
        ratios=_ratios(groups),
        networks=_networks(results),
        idle=_percent(max(each["idle_share"] for each in shares), 1),
        others=_percent(max(each["others_share"] for each in shares), 1),
        loader=_loader(results),
        runtimes=_runtimes(results),
        load=results["machine"]["load"],
        **{name: results[name] for name in ("batch", "size", "threads", "warmup", "rounds")},
        pause=results["pause"],
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _machine(results: Dict[str, Any]) -> str:
    m = results["machine"]
    versions: Dict[str, str] = {"Python": m["python"]}
    for group in [*results["networks"], *([results["loader"]] if results["loader"] else [])]:
        for run in group["runs"].values():
            versions.update(run["facts"]["versions"])
    kernels = sorted(
        {
            run["facts"]["kernels"]
            for group in results["networks"]
            for name, run in group["runs"].items()
            if name.startswith("ours")
        }
    )
    return table(
        ["", ""],
        [
            ["CPU", m["cpu"]],
            ["cores used", str(m["cores"])],
            ["instructions", ", ".join(m["flags"])],
            ["memory", f"{m['memory_gb']:.1f} GB"],
            ["system", m["system"]],
            ["versions", ", ".join(f"{name} {versions[name]}" for name in sorted(versions))],
            ["this repository's kernels", "; ".join(kernels)],
            ["date", results["date"]],
        ],
    )


def _peak(results: Dict[str, Any]) -> str:
    measured, cores = results["peak"], results["threads"]
    rows = []
    for precision, instructions in measured[0]["instructions"].items():
        values = [summary.peak(measured, threads, precision) for threads in (1, cores)]
        rows.append([precision, instructions or NONE, *(_giga(value) for value in values)])
    return table(["", "instructions", "one core", f"all {cores} cores"], rows)


def _ratios(groups: List[Dict[str, Any]]) -> str:
    rows = []
    for group in groups:
        runs = group["runs"]
        half = summary.times_faster(runs, "ours, bf16", "PyTorch, bf16")
        rows.append(
            [
                *_title(group),
                _times(summary.times_faster(runs, "ours", STOCK[0])),
                _times(summary.times_faster(runs, "ours", summary.fastest(runs, STOCK))),
                _times(summary.times_faster(runs, "ours", summary.fastest(runs, FP32_PEERS))),
                _times(half),
                _times(summary.times_faster(runs, "ours, bf16", "ours")),
                _times(summary.memory_ratio(runs, "ours", FP32_PEERS)),
            ]
        )
    head = ["network", "", "speed: ours / stock", "ours / stock, best", "ours / PyTorch fp32"]
    head += ["ours bf16 / PyTorch bf16", "ours bf16 / ours fp32", "memory: ours / PyTorch fp32"]
    return table(head, rows)


def _networks(results: Dict[str, Any]) -> str:
    rows = []
    for group in results["networks"]:
        facts = group["runs"]["ours"]["facts"]
        work = summary.operations(facts["macs"], facts["first_macs"], group["mode"])
        for name, run in group["runs"].items():
            speed = summary.speed(run["seconds"], results["batch"])
            precision = "bf16" if "bf16" in name else "fp32"
            peak = summary.peak(results["peak"], results["threads"], precision)
            share = None if peak is None else work * speed.median / (peak * 1e9)
            memory = f"{run['facts']['peak_mb']:.0f} MB"
            rows.append([*_title(group), name, *_speed(speed), _percent(share), memory])
    head = ["network", "", "configuration", "images/s", "deviation", "n", "of peak", "peak memory"]
    return table(head, rows)


def _loader(results: Dict[str, Any]) -> str:
    if not results["loader"]:
        return "Not measured in this run: `PHOTOS` was not given."
    runs = results["loader"]["runs"]
    images = runs["ours"]["facts"]["images"]
    rows = [
        [
            name,
            *_speed(summary.speed(run["seconds"], images)),
            _times(summary.times_faster(runs, "ours", name)),
        ]
        for name, run in runs.items()
    ]
    head = ["loader", "images/s", "deviation", "n", "ours is faster by"]
    return LOADER.format(images=images, batch=results["batch"], table=table(head, rows))


def _title(group: Dict[str, Any]) -> List[str]:
    return [NAMES.get(group[key], group[key]) for key in ("arch", "mode")]


def _speed(speed: summary.Speed) -> List[str]:
    return [_digits(speed.median), _digits(speed.deviation), str(speed.steps)]


def _digits(value: float) -> str:
    """Three that count, as far as they lie behind the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _times(ratio: Optional[float]) -> str:
    return NONE if ratio is None else f"{_digits(ratio)} ×"


def _percent(share: Optional[float], digits: int = 0) -> str:
    return NONE if share is None else f"{100 * share:.{digits}f} %"


def _giga(value: Optional[float]) -> str:
    return NONE if value is None else f"{value:.0f} GFLOP/s"


def main() -> int:
    """Write the page anew from the results; return the exit code."""
    results, document = (Path(word) for word in sys.argv[1:])
    page = render(json.loads(results.read_text(encoding="utf-8")))
    document.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
