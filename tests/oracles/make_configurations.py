"""Record what timm and torchvision say of their published weights: tests/oracles/published.json.gz.

    pip install torch==2.13.0 torchvision==0.28.0 timm==1.0.31 numpy==2.2.6
    git clone https://github.com/huggingface/pytorch-image-models timm
    git -C timm checkout aa4b5850
    python tests/oracles/make_configurations.py timm/results

(Python 3.11, CPU.) The networks are those that this project has; the names are theirs.
"""

import csv
import gzip
import json
import re
import sys
from pathlib import Path

from torch_oracle import declare_torchvision_ops

FILE = Path(__file__).resolve().parent / "published.json.gz"
NETWORKS = re.compile(
    r"(wide_)?resnet\d+(_2|c|d|s|t)?|resnext50d?_32x4d|resnext101_\d+x\d+d|resnetv2_\d+d?"
)
TIMM = (
    *("url", "hf_hub_id", "license", "input_size", "test_input_size", "crop_pct"),
    *("test_crop_pct", "interpolation", "crop_mode", "mean", "std", "num_classes"),
)
# timm's files of accuracies, by the columns of official/assets/published_results.txt.
RESULTS = {
    "top1": "results-imagenet.csv",
    "top5": "results-imagenet.csv",
    "real": "results-imagenet-real.csv",
    "v2": "results-imagenetv2-matched-frequency.csv",
    "a": "results-imagenet-a.csv",
    "r": "results-imagenet-r.csv",
    "sketch": "results-sketch.csv",
}


def results(folder: Path) -> dict:
    """Accuracies by column, by ``size/crop_pct``, by name."""
    found = {}
    for column, file in RESULTS.items():
        with (folder / file).open(newline="") as lines:
            for line in csv.DictReader(lines):
                if NETWORKS.fullmatch(line["model"].split(".")[0]):
                    sizes = found.setdefault(line["model"], {})
                    measured = sizes.setdefault(f"{line['img_size']}/{line['crop_pct']}", {})
                    measured[column] = float(line["top5" if column == "top5" else "top1"])
    return found


def of_timm() -> dict:
    """Its ``PretrainedCfg`` of every weight file, by name."""
    from timm.models import resnet, resnetv2

    found = {}
    for module in (resnet, resnetv2):
        for arch, default in module.default_cfgs.items():
            for tag, cfg in default.cfgs.items():
                if NETWORKS.fullmatch(arch) and cfg.has_weights:
                    found[f"{arch}.{tag}"] = {key: getattr(cfg, key) for key in TIMM}
    return found


def of_torchvision() -> dict:
    """Address, counts, accuracy and transform of every member of its ``Weights`` enums."""
    from torchvision.models import get_model_weights, resnet

    found = {}
    for arch in resnet.__all__:
        if not NETWORKS.fullmatch(arch):
            continue
        for weights in get_model_weights(arch):
            transform, meta = weights.transforms(), weights.meta
            found[f"{arch}.{weights.name}"] = {
                "url": weights.url,
                "num_params": meta["num_params"],
                **meta["_metrics"]["ImageNet-1K"],
                "gmacs": meta["_ops"],
                "resize": transform.resize_size[0],
                "crop": transform.crop_size[0],
                "mean": transform.mean,
                "std": transform.std,
                "interpolation": transform.interpolation.value,
                "classes": len(meta["categories"]),
            }
    return found


def main() -> None:
    declare_torchvision_ops()
    import timm
    import torchvision

    published = {
        "timm": {
            "version": timm.__version__,
            "rows": of_timm(),
            "results": results(Path(sys.argv[1])),
        },
        "torchvision": {"version": torchvision.__version__, "rows": of_torchvision()},
    }
    text = json.dumps(published, indent=0).encode()
    FILE.write_bytes(gzip.compress(text, mtime=0))


if __name__ == "__main__":
    main()
