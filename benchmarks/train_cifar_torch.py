#!/usr/bin/env python3
"""ResNet-20 on CIFAR-10 in PyTorch: the peer that this repository's training is held against.

.venv-torch/bin/python benchmarks/train_cifar_torch.py --data DIR --out runs/torch0 --seed 0

DIR holds train/ and test/ (or val/) with a folder of 32 px images per class. The recipe is that of
He et al. (arXiv:1512.03385, section 4.2), shortened as `train.py -c resnet20_cifar_he2015 --epochs
30` shortens it: batches of 128, SGD with momentum 0.9, weight decay 1e-4 on every parameter, the
learning rate 0.1 divided by ten after a half and three quarters of the run, images cut out of a
black border of 4 px and flipped at random. Written as PyTorch's users write it: none of this
repository's own code computes. A run that was stopped goes on with the same command, from the last
epoch that was finished.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Iterator, Sequence, Tuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.torch_resnet import resnet20_cifar  # noqa: E402

MEAN = torch.tensor([125.307, 122.961, 113.8575]).view(3, 1, 1)
STD = torch.tensor([51.5865, 50.847, 51.255]).view(3, 1, 1)
BATCH, PADDING, SIZE = 128, 4, 32

Data = Tuple[Tensor, Tensor]


def main() -> int:
    """Train, test after every epoch, write ``metrics.jsonl``; return the exit code."""
    args = parser().parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    train_set, test_set = load(args.data / "train"), load(test_folder(args.data))
    model = resnet20_cifar().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    milestones = [round(args.epochs / 2), round(3 * args.epochs / 4, 6)]
    first_epoch = resume(args.out / "last.pt", model, optimizer)
    for epoch in range(first_epoch, args.epochs):
        start = time.perf_counter()
        generator = torch.Generator().manual_seed(1000 * args.seed + epoch)
        steps = len(train_set[0]) // BATCH
        batches = enumerate(shuffled(train_set, generator))
        model.train()
        for step, (images, labels) in tqdm(batches, f"epoch {epoch + 1}", steps, disable=None):
            set_rate(optimizer, epoch + step / steps, milestones)
            loss = F.cross_entropy(model(augment(images, generator)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds = time.perf_counter() - start
        right = count_right(model, *test_set)
        row = {
            "epoch": epoch + 1,
            "train_loss": loss.item(),
            "right": right,
            "images": len(test_set[0]),
            "top1": 100 * right / len(test_set[0]),
            "train_seconds": round(seconds, 1),
        }
        with (args.out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)  # noqa: T201
        save(args.out / "last.pt", model, optimizer, epoch + 1)
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser


def test_folder(data: Path) -> Path:
    return data / "val" if (data / "val").is_dir() else data / "test"


def load(folder: Path) -> Data:
    """All images of a folder, ``(N, 3, 32, 32)`` uint8, and their labels, ``(N,)`` int64."""
    classes = sorted(each for each in folder.iterdir() if each.is_dir())
    files = [(path, label) for label, each in enumerate(classes) for path in sorted(each.iterdir())]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in files])
    labels = torch.tensor([label for _, label in files])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), labels


def shuffled(data: Data, generator: torch.Generator) -> Iterator[Data]:
    """One epoch's batches; what does not fill one is left out."""
    images, labels = data
    order = torch.randperm(len(images), generator=generator)
    for start in range(0, len(order) - BATCH + 1, BATCH):
        chosen = order[start : start + BATCH]
        yield images[chosen], labels[chosen]


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Cut every image out of a black border, flip half of them, normalise."""
    padded = F.pad(images, (PADDING,) * 4)
    count = len(images)
    tops, lefts = torch.randint(0, 2 * PADDING + 1, (2, count), generator=generator).tolist()
    flips = (torch.rand(count, generator=generator) < 0.5).tolist()
    cut = []
    for image, top, left, flip in zip(padded, tops, lefts, flips):
        square = image[:, top : top + SIZE, left : left + SIZE]
        cut.append(square.flip(2) if flip else square)
    return normalize(torch.stack(cut))


def normalize(images: Tensor) -> Tensor:
    return ((images - MEAN) / STD).to(memory_format=torch.channels_last)


def set_rate(optimizer: torch.optim.Optimizer, epoch: float, milestones: Sequence[float]) -> None:
    for group in optimizer.param_groups:
        group["lr"] = 0.1 * 0.1 ** sum(epoch >= milestone for milestone in milestones)


@torch.inference_mode()
def count_right(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    model.eval()
    right = 0
    for start in range(0, len(images), 100):
        logits = model(normalize(images[start : start + 100]))
        right += int((logits.argmax(1) == labels[start : start + 100]).sum())
    return right


def save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, epochs_done: int) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epochs_done}
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load what was saved, if anything was; return the first epoch to train."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["epoch"]


if __name__ == "__main__":
    sys.exit(main())
