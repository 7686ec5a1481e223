"""The same network in PyTorch, eager; runs in .venv-torch.

Run by compare.py; see worker.py for what is said on the standard input and output.
"""

import contextlib
import os
import re
import sys
from pathlib import Path
from typing import Callable, ContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import torch_resnet, worker  # noqa: E402

Autocast = Callable[[], ContextManager]


def main() -> int:
    """Serve one configuration; return the exit code."""
    parser = worker.network_parser(__doc__)
    parser.add_argument("--layout", default="nchw", choices=["nchw", "channels_last"])
    parser.add_argument("--compile", action="store_true", help="by torch.compile, weights frozen")
    args = parser.parse_args()
    server = worker.Server()
    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    memory_format = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
    to = {"memory_format": memory_format[args.layout]}
    model = getattr(torch_resnet, args.arch)().to(**to)
    images = torch.randn(args.batch, 3, args.size, args.size).to(**to)
    labels = torch.randint(0, worker.CLASSES, (args.batch,))

    def autocast() -> ContextManager:
        if args.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast("cpu", dtype=torch.bfloat16)

    if args.mode == "inference":
        if args.compile:
            model = compiled(model)
        step = inference(model, images, autocast)
    else:
        step = train(model, images, labels, autocast)
    facts = {
        "parameters": sum(each.numel() for each in model.parameters()),
        "kernels": f"PyTorch, {torch.get_num_threads()} thread(s)",
        "versions": {"PyTorch": torch.__version__, "oneDNN in PyTorch": onednn_version()},
    }
    return server.serve(step, args.warmup, facts, args.steps)


def onednn_version() -> str:
    """Of the library that PyTorch brings along."""
    found = re.search(r"(?:oneDNN|MKL-DNN) v([\d.]+)", torch.__config__.show())
    return found[1] if found else "none"


def inference(model: nn.Module, images: Tensor, autocast: Autocast) -> worker.Step:
    """A step is a forward pass of ``(N, 3, H, W)`` with the logits on the host."""
    model.eval()

    def step() -> float:
        with torch.inference_mode(), autocast():
            return float(model(images).float().numpy()[0, 0])

    return step


def compiled(model: nn.Module) -> nn.Module:
    """As PyTorch's guide has it for inference on CPUs."""
    from torch._inductor import config

    config.freezing = True
    return torch.compile(model.eval())


def train(model: nn.Module, images: Tensor, labels: Tensor, autocast: Autocast) -> worker.Step:
    """A step is forward, cross-entropy, backward and SGD, as PyTorch's tutorials have it."""
    model.train()
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=worker.RATE,
        momentum=worker.MOMENTUM,
        weight_decay=worker.WEIGHT_DECAY,
    )

    def step() -> float:
        with autocast():
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


if __name__ == "__main__":
    sys.exit(main())
