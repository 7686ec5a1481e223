"""Write small files in tests/oracles/files as PyTorch's projects save theirs.

    (the environment of make_mmpretrain.py), and pip install safetensors==0.8.0
    python tests/oracles/make_torch_files.py

The networks are narrow, but their blocks, names and layouts are the projects' own.
"""

import argparse
import logging
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Dict, Sequence

import torch
from cifar_torch import CifarResNet
from files import FOLDER, record
from torch import nn
from torch.utils.data import DataLoader
from torch_oracle import declare_torchvision_ops, give_seeded_weights

Entries = Dict[str, Sequence]


class Images(list):
    """A data set as MMEngine knows them: the runner saves ``metainfo`` with the weights."""

    metainfo = {"classes": ("a", "b", "c", "d", "e")}


def entries(model: nn.Module, prefix: str = "") -> Entries:
    """Fill the model with seeded weights; what the manifest says of them."""
    shapes = give_seeded_weights(model, prefix)
    counter = "num_batches_tracked"
    return {
        name: ("int64" if name.endswith(counter) else "float32", shape)
        for name, shape in shapes.items()
    }


def mmpretrain_files() -> Dict[str, Entries]:
    """ResNetV1d-50's first blocks: as the runner saves them, and as MMPreTrain publishes that."""
    import mmpretrain
    from mmengine.runner import Runner

    name = "resnetv1d50_8xb32_in1k"
    narrow = {"base_channels": 1, "stem_channels": 4}
    head = {"num_classes": 5, "in_channels": 8 * 4}
    model = mmpretrain.get_model(name, pretrained=False, backbone=narrow, head=head)
    for stage in model.backbone.res_layers:
        del getattr(model.backbone, stage)[1:]
    contents = entries(model)
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(
            model,
            folder,
            train_dataloader=DataLoader(Images([0, 1])),
            train_cfg={"by_epoch": True, "max_epochs": 1},
            optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
            param_scheduler={"type": "MultiStepLR", "milestones": [30, 60, 90]},
            default_scope="mmpretrain",
            experiment_name="narrow",
        )
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
        runner.message_hub.update_scalar("train/loss", 1.5)
        runner.save_checkpoint(folder, "epoch_1.pth")
        saved = torch.load(Path(folder) / "epoch_1.pth", map_location="cpu", weights_only=False)
    torch.save(saved, FOLDER / "mmpretrain_runner.pth")
    # What tools/model_converters/publish_model.py takes away.
    for key in ("optimizer", "param_schedulers", "hook_msgs", "message_hub"):
        saved.pop(key, None)
    torch.save(saved, FOLDER / "mmpretrain_published.pth")
    old = FOLDER / "mmpretrain_published_legacy.pth"
    torch.save(saved, old, _use_new_zipfile_serialization=False)
    names = ("runner", "published", "published_legacy")
    return {f"mmpretrain_{name}.pth": contents for name in names}


def torchvision_files() -> Dict[str, Entries]:
    """A bare state dict behind DataParallel, and what torchvision's training script saves."""
    from torchvision.models.resnet import BasicBlock, conv1x1

    shortcut = nn.Sequential(conv1x1(4, 8, 2), nn.BatchNorm2d(8))
    model = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 4, 7, 2, 3, bias=False),
            bn1=nn.BatchNorm2d(4),
            layer1=nn.Sequential(BasicBlock(4, 4), BasicBlock(4, 4)),
            layer2=nn.Sequential(BasicBlock(4, 8, 2, shortcut)),
            fc=nn.Linear(8, 5),
        )
    )
    bare = entries(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    sum(value.sum() for value in model.parameters()).backward()
    checkpoint = {
        "model": {name: value.clone() for name, value in model.state_dict().items()},
        "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 30).state_dict(),
        "epoch": 1,
        "args": argparse.Namespace(model="resnet18", lr=0.1, weights=None),
    }
    optimizer.step()
    checkpoint["optimizer"] = optimizer.state_dict()
    torch.save(checkpoint, FOLDER / "torchvision_training.pth")
    parallel = nn.DataParallel(model)
    wrapped = entries(parallel)
    torch.save(parallel.state_dict(), FOLDER / "torchvision_parallel.pth")
    return {"torchvision_training.pth": bare, "torchvision_parallel.pth": wrapped}


def timm_files() -> Dict[str, Entries]:
    """ResNet-D in safetensors, which is how timm publishes its weights."""
    from safetensors.torch import save_file
    from timm.models.resnet import Bottleneck, ResNet

    model = ResNet(
        Bottleneck,
        (1, 1, 1, 1),
        num_classes=5,
        channels=(2, 4, 6, 8),
        stem_width=4,
        stem_type="deep",
        avg_down=True,
    )
    contents = entries(model)
    path = FOLDER / "timm.safetensors"
    save_file(model.state_dict(), path, metadata={"format": "pt"})
    path.chmod(0o644)
    return {"timm.safetensors": contents}


def cifar_files() -> Dict[str, Entries]:
    """The layout of akamaster/pytorch_resnet_cifar10's files, which are of the legacy format."""
    model = nn.DataParallel(CifarResNet(1, (4, 8, 16)))
    contents = entries(model)
    saved = {"state_dict": model.state_dict(), "best_prec1": 92.6}
    torch.save(saved, FOLDER / "cifar_legacy.th", _use_new_zipfile_serialization=False)
    return {"cifar_legacy.th": contents}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    declare_torchvision_ops()
    record(mmpretrain_files())
    record(torchvision_files())
    record(timm_files())
    record(cifar_files())


if __name__ == "__main__":
    main()
