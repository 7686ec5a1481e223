"""Testing a network on a folder of images."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

from ..data.calibrating import calibration_of
from ..data.dataset import ImageDataset
from ..data.loader import Loader
from ..data.normalize import Normalize
from ..data.sampler import eval_batches
from ..data.splits import HeldOut, open_testing
from ..data.transforms import EvalTransform
from ..distributed.collectives import rank, world_size
from ..distributed.consistency import require_same_state
from ..distributed.heartbeat import with_heartbeats
from ..distributed.launch import Topology, launch
from ..engine.class_scores import ClassCounts, ClassScores
from ..engine.console import Console
from ..engine.device import choose_device, prepare, use_device
from ..engine.evaluation import FlipTta, Result, evaluate
from ..engine.files import check_target, refuse_inside
from ..engine.labels import apply_class_map, label, read_class_map
from ..engine.meters import Meter
from ..engine.nodes import require_same_images
from ..engine.schema import InferencePrecision
from ..engine.skipping import Skipped, without_broken
from ..errors import UsageError, UserError, WeightsError
from ..page import language_of
from ..text import seven_digits
from ..zoo.trained import Network, NetworkConfig, open_network
from .before import BeforeInt8, line_of_both
from .benchmarks import Judge, line_of, load_images
from .calibration import Calibration, LogitsOfAll, calibrate
from .report.answers import AnswersOfAll, ReportData
from .report.heat import HeatMaps
from .report.run import run_of


@dataclass(frozen=True)
class TestConfig:
    """What is tested, on what, and how it is told.

    Args:
        calibration: a folder of images for int8; None for those tested.
        tta: whether the mean over every image and its mirror image is tested as well.
        calibrate: whether a temperature is fitted on half of the images and judged on the others.
        report: a folder for report.html and predictions.csv, which is made.
        benchmark: one of ``BENCHMARKS``, which the images are; they are counted as it defines.
        real_labels: for ImageNet ReaL, the path of its labels.
        split: "train", "val" or "test"; None for "val" or what there is in its place.
        language: of the report: "en", "zh", or None for that of the locale.
        skip_broken: whether images that cannot be used are left out.
    """

    data: str
    network: NetworkConfig = NetworkConfig()
    class_map: Optional[str] = None
    topology: Topology = Topology()
    device: str = "auto"
    precision: InferencePrecision = "fp32"
    calibration: Optional[str] = None
    batch_size: int = 100
    workers: int = 2
    print_freq: int = 20
    json: Optional[str] = None
    tta: bool = False
    calibrate: bool = False
    report: Optional[str] = None
    benchmark: Optional[str] = None
    real_labels: Optional[str] = None
    split: Optional[str] = None
    language: Optional[str] = None
    skip_broken: bool = False


def test(config: TestConfig) -> int:
    """Count how many images of the validation set are classified right; return the exit code.

    Raises:
        UserError: for what the user can mend.
    """
    if config.real_labels and not config.benchmark:
        raise UsageError("--real-labels needs --benchmark imagenet-real")
    for flag, path in (("--json", config.json), ("--report", config.report)):
        if path:
            refuse_inside(flag, Path(path), Path(config.data))
    if config.json:
        check_target("--json", Path(config.json))
    if config.report and config.topology.node == 0:
        _make_folder(Path(config.report))
    device = choose_device(config.device, config.topology.ngpus)
    return launch(_test_on_this_rank, config.topology, config, device, device_type=device)


def _test_on_this_rank(config: TestConfig, device: str) -> int:
    use_device(device)
    class_map = read_class_map(config.class_map) if config.class_map else None
    network = open_network(config.network)
    if config.benchmark:
        folder, which = load_images(config.data), f"tested on the images of {config.data}"
    else:
        folder, which = open_testing(config.data, config.split, _held_out(network))
    if class_map is None:
        folder = label(folder, network)
    else:
        folder = apply_class_map(folder, class_map, network.classes, network.names)
    console = Console(rank() == 0)
    console.line(which)
    skipped = None
    if config.skip_broken:
        folder, skipped = without_broken(folder, "test", network.preprocess, config.workers)
        for line in skipped.lines():
            console.line(line)
    require_same_images(test=folder)
    require_same_state(network.model, None)
    loader = Loader(
        folder,
        EvalTransform(network.preprocess),
        network.preprocess.order,
        eval_batches(len(folder), config.batch_size, rank(), world_size()),
        workers=config.workers,
    )
    given = len(folder), folder.read
    stated = network.config.int8_ranges
    ranges = calibration_of(config.precision, config.calibration, stated, given, network.preprocess)
    model = prepare(network.model, device, config.precision, ranges)
    before = BeforeInt8(network) if config.precision == "int8" else None
    normalize = Normalize(network.preprocess, model.ops)
    judge = None
    if config.benchmark:
        judge = Judge(config.benchmark, folder, network, config.real_labels)
    tta = FlipTta(model, normalize) if config.tta else None
    logits = LogitsOfAll(len(folder), network.num_classes) if config.calibrate else None
    answers = AnswersOfAll(len(folder), network.num_classes) if config.report else None
    counts = ClassCounts(network.num_classes)
    console.start_bar("Test", len(folder))
    watchers = (tta, before, logits, answers, counts, judge)
    result = evaluate(
        model,
        with_heartbeats(loader),
        normalize,
        len(folder),
        report=_Reporter(console, config.print_freq),
        watchers=[watcher.add for watcher in watchers if watcher],
    )
    console.stop_bar()
    mirrored = tta.counter.result(len(folder)) if tta else None
    calibration = calibrate(*logits.gather()) if logits else None
    scores = counts.scores()
    in_fp32 = before.counter.result(len(folder)) if before else None
    _tell(config, console, result, scores, folder, in_fp32, mirrored, calibration, judge, skipped)
    if answers and config.report:
        data = ReportData(
            folder,
            answers.gather(),
            result.loss,
            f"{network.arch} · {_name_of(folder)}",
            _about(config, device, network, folder),
            _remarks(mirrored, calibration) + (skipped.lines() if skipped else []),
            HeatMaps(model, normalize, network.preprocess),
            run_of(config.network.model),
            language_of(config.language),
        )
        _report(Path(config.report), console, data)
    return 0


def _held_out(network: Network) -> Optional[HeldOut]:
    """Which images of its data set the network's run has not trained on, if it says so."""
    try:
        return HeldOut.from_dict(network.config.held_out) if network.config.held_out else None
    except ValueError as error:
        raise WeightsError(f"{network.config.source}: damaged: {error}") from None


def _tell(
    config: TestConfig,
    console: Console,
    result: Result,
    scores: ClassScores,
    folder: ImageDataset,
    in_fp32: Optional[Result],
    mirrored: Optional[Result],
    calibration: Optional[Calibration],
    judge: Optional[Judge],
    skipped: Optional[Skipped],
) -> None:
    answer = result.to_dict()
    console.line(f"Test Acc@1 {result.top1:.3f}, Acc@5 {result.top5:.3f}")
    answer.update(
        scores.means(),
        classes=scores.by_class(folder.classes),
        confusion=scores.confusion(folder.classes),
    )
    if in_fp32:
        console.line(line_of_both(in_fp32, result))
        answer["fp32"] = in_fp32.to_dict()
    if mirrored:
        answer["tta"] = mirrored.to_dict()
    if calibration:
        answer["calibration"] = calibration.to_dict()
    for line in _remarks(mirrored, calibration):
        console.line(line)
    if judge:
        answer["benchmark"] = judge.result()
        console.line(line_of(answer["benchmark"]))
    if skipped:
        answer["skipped"] = skipped.to_dict()
    if config.json and rank() == 0:
        _write_json(Path(config.json), answer)


def _remarks(mirrored: Optional[Result], calibration: Optional[Calibration]) -> List[str]:
    """What is told beside the accuracy."""
    lines = []
    if mirrored:
        lines.append(f"Flip TTA Acc@1 {mirrored.top1:.3f}, Acc@5 {mirrored.top5:.3f}")
    return lines + (calibration.lines() if calibration else [])


def _name_of(folder: ImageDataset) -> str:
    """Of a data set: the last part of its path that says something."""
    path = Path(folder.root).resolve()
    usual = ("train", "training", "val", "valid", "validation", "test")
    return f"{path.parent.name}/{path.name}" if path.name in usual else path.name


def _about(
    config: TestConfig, device: str, network: Network, folder: ImageDataset
) -> Dict[str, str]:
    """What was tested, on what and where, for the report."""
    processes = config.topology.processes
    return {
        "Network": f"{network.arch}, {network.num_classes:,} classes",
        "Weights": _weights(config.network.model),
        "Data": f"{_name_of(folder)}, {len(folder):,} images",
        "Preprocessing": ", ".join(f"{k} {v}" for k, v in network.preprocess.to_dict().items()),
        "Computed": f"on {device}, {config.precision}, processes: {processes}",
        "Date": time.strftime("%Y-%m-%d %H:%M"),
    }


def _weights(model: Optional[str]) -> str:
    """By the names of the file and its folder, which say nothing of the machine."""
    return (
        "/".join(Path(model).resolve().parts[-2:])
        if model and Path(model).exists()
        else (model or "published")
    )


def _report(target: Path, console: Console, data: ReportData) -> None:
    if rank() == 0:
        from .report.page import write_report  # matplotlib takes its time

        write_report(target, data)
    console.line(f"report: {target / 'report.html'}, and every image in predictions.csv")


def _make_folder(path: Path) -> None:
    """Make the folder of a report, before the work whose result it is to hold.

    Raises:
        UsageError: when that is not possible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError(f"--report {path}: is a file; give a folder's name") from None
    except OSError as error:
        raise UsageError(f"--report {path}: cannot be made: {error.strerror}") from None


class _Reporter:
    """The seed's line after every ``print_freq`` batches."""

    def __init__(self, console: Console, print_freq: int):
        self.console = console
        self.print_freq = print_freq
        self.step = 0
        self.meters = [Meter(name) for name in ("Loss", "Acc@1", "Acc@5", "Time")]
        self.last_time = time.perf_counter()

    def __call__(self, batch: Result) -> None:
        now = time.perf_counter()
        values = (batch.loss, batch.top1, batch.top5, now - self.last_time)
        self.last_time = now
        for meter, value in zip(self.meters, values):
            meter.update(value, batch.total)
        if self.step % self.print_freq == 0:
            self.console.tick(f"Test step {self.step}, " + " ".join(map(str, self.meters)))
        self.console.advance(batch.total * world_size())
        self.step += 1


def _write_json(path: Path, answer: Dict[str, Any]) -> None:
    text = json.dumps(_with_seven_digits(answer), indent=2)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json {path}: cannot be written: {error.strerror}") from None


def _with_seven_digits(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_seven_digits(one) for key, one in value.items()}
    return seven_digits(value) if isinstance(value, float) else value
