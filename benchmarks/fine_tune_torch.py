#!/usr/bin/env python3
"""ResNet-18 fine-tuned on photographs in PyTorch: what docs/fine-tuning.md is held against.

.venv-torch/bin/python benchmarks/fine_tune_torch.py --data DIR --weights FILE --out runs/t0

DIR holds train/, validation/ (or val/) and test/ with a folder of images per class; FILE is a state
dict with torchvision's names. Two recipes, written as PyTorch's users write them; none of this
repository's own code computes:

tutorial  PyTorch's "Transfer Learning for Computer Vision": a new classifier, then SGD on all
          layers (rate 0.001, momentum 0.9, divided by ten after 7 epochs, batches of 4).
adamw     The best that was found: the classifier first (logistic regression by L-BFGS on features
          of the centre crop and its mirror image, penalty chosen on the validation images), then
          all layers by AdamW in one cycle (at most 1e-4, decay 0.01), label smoothing 0.1,
          statistics of normalisations frozen, batches of 32, crops of 30 to 100 %.
scratch   As tutorial, with weights drawn anew, rate 0.1 in one cycle, batches of 32.

After every epoch the validation images are counted; the network that did best there (of adamw, also
the classifier alone) is tested once.
"""

import argparse
import copy
import json
import os
import random
import sys
import time
from functools import partial
from pathlib import Path
from typing import Callable, Dict, Iterable, List, Tuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import worker_pil  # noqa: E402
from benchmarks.torch_resnet import resnet18  # noqa: E402

CLASSIFIER = 7  # its place in the sequence
PENALTIES = [10 ** (-power / 2) for power in range(2, 13)]


class Photographs(Dataset):
    """The files of a folder's classes, and what ``load`` makes of them."""

    def __init__(self, folder: Path, load: Callable[[Path], Tensor]):
        classes = sorted(each for each in folder.iterdir() if each.is_dir())
        self.classes = [each.name for each in classes]
        self.files = [
            (path, label) for label, each in enumerate(classes) for path in sorted(each.iterdir())
        ]
        self.load = load

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tuple[Tensor, int]:
        path, label = self.files[index]
        return self.load(path), label


def main() -> int:
    """Train, test after every epoch, write ``metrics.jsonl``; return the exit code."""
    args = parser().parse_args()
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    folder = next(args.data / name for name in ("validation", "val") if (args.data / name).is_dir())
    val, test = (Photographs(each, centre) for each in (folder, args.data / "test"))
    model = resnet18()
    if args.recipe != "scratch":
        model.load_state_dict(renamed(torch.load(args.weights, weights_only=True)))
    model[CLASSIFIER] = nn.Linear(512, len(val.classes))
    model.to(memory_format=torch.channels_last)
    train, epochs = {"tutorial": tutorial, "adamw": adamw, "scratch": scratch}[args.recipe](
        model, args, val
    )
    right = count_right(model, batches(val))
    best, state = right, copy.deepcopy(model.state_dict())
    write(args.out, {"epoch": 0, "val_right": right, "val_images": len(val)})
    for epoch in range(epochs):
        loss = train()
        right = count_right(model, batches(val))
        if right > best:
            best, state = right, copy.deepcopy(model.state_dict())
        write(args.out, {"epoch": epoch + 1, "train_loss": loss, "val_right": right})
    model.load_state_dict(state)
    seconds = time.perf_counter() - start
    right = count_right(model, batches(test))
    row = {"val_right": best, "test_right": right, "test_images": len(test), "seconds": seconds}
    write(args.out, row)
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", choices=["tutorial", "adamw", "scratch"], default="adamw")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser


def centre(path: Path) -> Tensor:
    """torchvision's Resize(256), CenterCrop(224), ToTensor and Normalize."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    scale = 256 / min(image.size)
    width, height = (256 if side == min(image.size) else int(side * scale) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    return worker_pil.normalised(image.crop((left, top, left + 224, top + 224)))


def batches(data: Photographs, size: int = 32, shuffle: bool = False) -> DataLoader:
    return DataLoader(data, size, shuffle, num_workers=2)


def renamed(state: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """From torchvision's names to those of ``torch_resnet``, whose blocks are one sequence."""
    places = {"conv1": "0", "bn1": "1", "fc": str(CLASSIFIER)}
    for stage in range(4):
        for block in range(2):
            places[f"layer{stage + 1}.{block}"] = f"4.{2 * stage + block}"
    result = {}
    for name, value in state.items():
        prefix = next(each for each in places if name.startswith(f"{each}."))
        result[places[prefix] + name[len(prefix) :]] = value
    return result


Training = Tuple[Callable[[], float], int]


def tutorial(model: nn.Sequential, args: argparse.Namespace, val: Photographs) -> Training:
    data = batches(Photographs(args.data / "train", worker_pil.load), 4, True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 7 * len(data), 0.1)
    return partial(one_epoch, model, data, optimizer, schedule, 0.0, False), args.epochs


def scratch(model: nn.Sequential, args: argparse.Namespace, val: Photographs) -> Training:
    data = batches(Photographs(args.data / "train", worker_pil.load), 32, True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    schedule = one_cycle(optimizer, 0.1, args.epochs * len(data))
    return partial(one_epoch, model, data, optimizer, schedule, 0.0, False), args.epochs


def adamw(model: nn.Sequential, args: argparse.Namespace, val: Photographs) -> Training:
    fit_classifier(model, Photographs(args.data / "train", centre), val)
    load = partial(worker_pil.load, area=(0.3, 1.0))
    data = batches(Photographs(args.data / "train", load), 32, True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    schedule = one_cycle(optimizer, 1e-4, args.epochs * len(data))
    return partial(one_epoch, model, data, optimizer, schedule, 0.1, True), args.epochs


def one_cycle(
    optimizer: torch.optim.Optimizer, rate: float, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)


def one_epoch(
    model: nn.Sequential,
    data: Iterable[Tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    smoothing: float,
    frozen_statistics: bool,
) -> float:
    """The mean loss over the epoch's images."""
    model.train()
    if frozen_statistics:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    total, count = 0.0, 0
    for images, labels in data:
        logits = model(images.to(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total, count = total + loss.item() * len(labels), count + len(labels)
    return total / count


def fit_classifier(model: nn.Sequential, train: Photographs, val: Photographs) -> None:
    """Multinomial logistic regression on features; the penalty is the one best on ``val``."""
    x, y = features(model, batches(train), True)
    others, labels = features(model, batches(val), False)
    best, found = float("inf"), None
    for penalty in PENALTIES:
        head = fitted(x, y, model[CLASSIFIER].out_features, penalty)
        loss = F.cross_entropy(head(others), labels).item()
        if loss < best:
            best, found = loss, head
    model[CLASSIFIER] = found


@torch.no_grad()
def features(
    model: nn.Sequential, data: Iterable[Tuple[Tensor, Tensor]], mirrored: bool
) -> Tuple[Tensor, Tensor]:
    model.eval()
    classifier, model[CLASSIFIER] = model[CLASSIFIER], nn.Identity()
    found: List[Tuple[Tensor, Tensor]] = []
    for images, labels in data:
        for side in range(1 + mirrored):
            batch = images.flip(3) if side else images
            found.append((model(batch.to(memory_format=torch.channels_last)), labels))
    model[CLASSIFIER] = classifier
    return torch.cat([each for each, _ in found]), torch.cat([each for _, each in found])


def fitted(x: Tensor, y: Tensor, num_classes: int, penalty: float) -> nn.Linear:
    """On features of unit mean square, so that a penalty means the same for all weights."""
    mean = x.mean(0)
    scale = (x - mean).square().sum(1).mean().sqrt()
    head = nn.Linear(x.shape[1], num_classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")
    inputs = (x - mean) / scale

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(head(inputs), y) + penalty / 2 * head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        head.weight /= scale
        head.bias -= head.weight @ mean
    return head


@torch.inference_mode()
def count_right(model: nn.Sequential, data: Iterable[Tuple[Tensor, Tensor]]) -> int:
    model.eval()
    return sum(
        int((model(images.to(memory_format=torch.channels_last)).argmax(1) == labels).sum())
        for images, labels in data
    )


def write(out: Path, row: dict) -> None:
    with (out / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
