"""Write tests/oracles/files/mindspore_*.ckpt with MindSpore itself.

    pip install mindspore==2.10.0 numpy==1.26.4 tqdm pyyaml requests
    pip install --no-deps mindcv==0.3.0
    python tests/oracles/make_mindspore_files.py

(Python 3.11, CPU.) The network is narrow, but its blocks, names and layouts are those of MindCV's
``resnetv2_50``. The split file is what MindSpore writes for a tensor above 512 MiB, with that
limit lowered to 1 KiB: into pieces of 1 KiB, and, when saved by a thread, at whole rows.
"""

import threading

import mindspore as ms
import seeded
from files import FOLDER, record
from mindcv.models.resnetv2 import PreActBottleneck
from mindspore import nn
from mindspore.train import serialization

WIDTH = 8
MIXED = {
    "float16.weight": ("float16", (4, 3, 2, 2)),
    "float16.running_var": ("float16", (7,)),
    "bfloat16.weight": ("bfloat16", (3, 5)),
    "float32.weight": ("float32", (3, 5)),
    "float64.weight": ("float64", (3, 5)),
    "int8.index": ("int8", (6,)),
    "uint8.index": ("uint8", (6,)),
    "int16.index": ("int16", (2, 3)),
    "int32.index": ("int32", (2, 3)),
    "int64.index": ("int64", (2, 3)),
    "bool.index": ("bool", (9,)),
    "int32.scalar": ("int32", ()),
    "float32.scalar.bias": ("float32", ()),
    "float16.scalar.bias": ("float16", ()),
}
APPENDED = {
    "epoch_num": ("int64", (), 3),
    "learning_rate": ("float32", (), 0.5),
    "network": ("str", (), "resnetv2_50"),
}


class NarrowNet(nn.Cell):
    """The parameters of a ResNet v2 with one stage of two blocks; it is only saved."""

    def __init__(self) -> None:
        super().__init__()
        out = WIDTH * PreActBottleneck.expansion
        shortcut = nn.SequentialCell(nn.Conv2d(WIDTH, out, 1), nn.BatchNorm2d(out))
        self.conv1 = nn.Conv2d(3, WIDTH, 7, stride=2, pad_mode="pad", padding=3)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        first = PreActBottleneck(WIDTH, WIDTH, down_sample=shortcut)
        self.layer1 = nn.SequentialCell(first, PreActBottleneck(out, WIDTH))
        self.classifier = nn.Dense(out, 5)


def narrow_net() -> NarrowNet:
    net = NarrowNet()
    for name, parameter in net.parameters_and_names():
        parameter.set_data(ms.Tensor(seeded.tensor(name, parameter.shape)))
    return net


def mixed() -> list:
    """Tensors of every type as ``save_checkpoint`` takes them."""
    entries = []
    for name, (kind, shape) in MIXED.items():
        value = ms.Tensor(seeded.of_type(name, kind, shape))
        if kind == "bfloat16":
            value = value.astype(ms.bfloat16)
        entries.append({"name": name, "data": value})
    return entries


def save(name: str, content: object, **options: object) -> None:
    path = FOLDER / name
    ms.save_checkpoint(content, str(path), **options)
    for thread in threading.enumerate():
        if thread.name == "asyn_save_ckpt":
            thread.join()
    path.chmod(0o644)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    net = narrow_net()
    tensors = {name: ("float32", tuple(p.shape)) for name, p in net.parameters_and_names()}
    save("mindspore_plain.ckpt", net)
    save("mindspore_crc.ckpt", net, crc_check=True)
    limit, serialization.SLICE_SIZE = serialization.SLICE_SIZE, 1
    save("mindspore_split.ckpt", net)
    save("mindspore_split_crc.ckpt", net, crc_check=True, async_save="thread")
    serialization.SLICE_SIZE = limit
    appended = {name: value for name, (_, _, value) in APPENDED.items()}
    save("mindspore_mixed.ckpt", mixed(), append_dict=appended)
    record(
        {
            "mindspore_plain.ckpt": tensors,
            "mindspore_crc.ckpt": tensors,
            "mindspore_split.ckpt": tensors,
            "mindspore_split_crc.ckpt": tensors,
            "mindspore_mixed.ckpt": {**MIXED, **APPENDED},
        }
    )


if __name__ == "__main__":
    main()
