"""Write the small data sets of tests/oracles/files/data with the tools that people write them with.

    pip install numpy==2.4.6 opencv-python-headless==5.0.0.93 scipy==1.17.1 webdataset==1.0.2
    pip install datasets==5.2.0 Pillow
    python tests/oracles/make_data_files.py

The images and classes are those of tests/vision/classification/data/sources/forms.py.
"""

import sys
from pathlib import Path

import datasets
import numpy as np
import scipy.io
import webdataset

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.vision.classification.data.sources.forms import CLASSES, FILES, LABELS, png  # noqa: E402


def shards() -> None:
    for split in LABELS:
        pattern = str(FILES / f"shards-{split}-%02d.tar")
        with webdataset.ShardWriter(pattern, maxcount=5) as writer:
            for index, label in enumerate(LABELS[split]):
                sample = {"png": png(split, index), "cls": label, "json": {"label": label}}
                writer.write({"__key__": f"{index % 5:04}", **sample})
    (FILES / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))


def parquet() -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
    )
    for split, name in (("train", "train"), ("val", "validation")):
        rows = {
            "image": [
                {"bytes": png(split, index), "path": None} for index in range(len(LABELS[split]))
            ],
            "label": LABELS[split],
        }
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(FILES / f"{name}-00000-of-00001.parquet", batch_size=5)


def meta() -> None:
    """As in the development kit of 2012: low-level classes first, in an order of their own."""
    types = [
        *(("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O")),
        *(("num_children", "O"), ("children", "O"), ("num_train_images", "O")),
    ]
    synsets = np.empty((4, 1), types)
    wnids = (CLASSES[2], CLASSES[0], CLASSES[1], "n00001740")
    for place, wnid in enumerate(wnids):
        children = np.array([[1, 2, 3]], np.uint16) if place == 3 else np.empty((0, 0))
        number = 1001 if place == 3 else place + 1
        words = "entity" if place == 3 else f"thing {place}, other name"
        synsets[place, 0] = (
            *(np.array([[number]], np.float64), wnid, words, "what it is, at length" * 20),
            *(np.array([[children.size]], np.float64), children, np.array([[1300.0]])),
        )
    scipy.io.savemat(FILES / "meta.mat", {"synsets": synsets}, do_compression=True)


if __name__ == "__main__":
    shards()
    parquet()
    meta()
