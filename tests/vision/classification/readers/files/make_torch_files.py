"""Write the files beside this script with PyTorch itself.

    pip install torch==2.13.0 numpy
    python tests/vision/classification/readers/files/make_torch_files.py

(Python 3.11, CPU.) All values follow from formulas that the tests repeat in numpy.
"""

import argparse
import warnings
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

FOLDER = Path(__file__).resolve().parent

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def state_dict() -> OrderedDict:
    """Every type and every kind of layout."""
    tensors = OrderedDict()
    for name in FLOATS:
        tensors[name] = (torch.arange(6).reshape(2, 3) / 4 - 0.5).to(getattr(torch, name))
    for name in INTEGERS:
        tensors[name] = torch.arange(1, 5).to(getattr(torch, name))
    tensors["bool"] = torch.arange(5) % 2 == 0
    tensors["scalar"] = torch.tensor(7)
    tensors["float scalar"] = torch.tensor(-2.5, dtype=torch.bfloat16)
    tensors["empty"] = torch.zeros(0, 3)
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    tensors["whole"] = base
    tensors["transposed"] = base.permute(2, 0, 1)
    tensors["part"] = base[1, 1:, ::2]
    tensors["same part"] = base[1, 1:, ::2]
    tensors["bool transposed"] = (torch.arange(6).reshape(2, 3) % 2 == 0).t()
    tensors["half transposed"] = torch.arange(6).reshape(2, 3).to(torch.bfloat16).t()
    tensors["expanded"] = torch.tensor([1.5, 2.5]).reshape(2, 1).expand(2, 3)
    tensors["parameter"] = nn.Parameter(torch.arange(4) / 8)
    noted = nn.Parameter(torch.arange(3) / 8)
    noted.note = "an attribute"
    tensors["parameter with a state"] = noted
    tensors._metadata = OrderedDict([("", {"version": 1})])
    return tensors


def training_checkpoint() -> dict:
    """As torchvision's training script saves it, with a little of everything."""
    model = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(3)).eval()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [30, 60, 90])
    model(torch.ones(2, 2, 2, 2)).sum().backward()
    optimizer.step()
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(6).reshape(3, 2, 1, 1) / 8)
        model[1].weight.copy_(torch.arange(3) / 4)
        model[1].bias.copy_(torch.arange(3) / 2)
    args = argparse.Namespace(lr=0.1, output_dir=Path("/runs/1"), device=torch.device("cpu"))
    args.size, args.dtype = torch.Size([2, 3]), torch.float16
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": schedule.state_dict(),
        "epoch": 3,
        "args": args,
        "best": torch.tensor(71.5),
    }


def main() -> None:
    warnings.simplefilter("ignore")  # the legacy layout and TorchScript are deprecated
    tensors = state_dict()
    for protocol in (2, 4):
        torch.save(tensors, FOLDER / f"zip_{protocol}.pth", pickle_protocol=protocol)
        path = FOLDER / f"legacy_{protocol}.pth"
        with path.open("wb") as file:
            torch.save(
                tensors, file, pickle_protocol=protocol, _use_new_zipfile_serialization=False
            )
    torch.save(training_checkpoint(), FOLDER / "training.pth")
    small = {"weight": torch.arange(6).reshape(2, 3) / 4, "count": torch.tensor(7)}
    torch.serialization.set_crc32_options(False)
    torch.save(small, FOLDER / "no_checksums.pth")
    torch.serialization.set_crc32_options(True)
    torch.save(nn.Linear(1, 1), FOLDER / "whole_module.pth")
    torch.jit.script(nn.Linear(1, 1)).save(str(FOLDER / "torchscript.pt"))


if __name__ == "__main__":
    main()
