"""Images are prepared as torchvision and timm do, to the byte.

``tests/oracles/transforms.json.gz`` has what their own transforms made of the same images.
"""

import gzip
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest

from official.vision.classification.data.transforms import EvalTransform
from official.vision.classification.preprocess import PRESETS
from official.vision.classification.zoo.rows import BY_NAME
from tests.oracles import seeded

FILE = Path(__file__).resolve().parents[3] / "oracles" / "transforms.json.gz"
CASES = json.loads(gzip.decompress(FILE.read_bytes()))["images"]


def pixels(preprocess, height, width):
    values = seeded.images(height, width, 1)[0]
    image = np.uint8(np.clip(values * 50 + 128, 0, 255)).transpose(1, 2, 0)
    made = EvalTransform(preprocess)(np.ascontiguousarray(image[:, :, ::-1]))[:, :, ::-1]
    return hashlib.sha256(np.ascontiguousarray(made).tobytes()).hexdigest()


@pytest.mark.parametrize("publisher", ["torchvision", "timm"])
def test_the_preset_is_both_publishers(publisher):
    cases = [case for case in CASES if case[0] == publisher]
    assert len(cases) == {"torchvision": 14, "timm": 84}[publisher]
    for _, height, width, settings, expected in cases:
        share = settings.pop("crop_pct", None)
        if share is not None:
            settings["resize"] = math.floor(settings["crop"] / share)
        preprocess = PRESETS["torchvision"].override(settings)
        assert pixels(preprocess, height, width) == expected, (height, width, settings)


def test_rounding_is_what_matters():
    """Most images would be prepared otherwise by the other way to round."""
    cases = [case for case in CASES if case[0] == "torchvision"]
    nearest = PRESETS["torchvision"].override({"rounding": "nearest"})
    same = [
        pixels(nearest.override(settings), height, width) == expected
        for _, height, width, settings, expected in cases
    ]
    assert 0 < sum(same) < len(same)


@pytest.mark.parametrize("name", ["resnet50.tv_in1k", "resnet50.tv2_in1k"])
def test_torchvisions_rows_are_prepared_so(name):
    row = BY_NAME[name].preprocess
    found = [
        pixels(row, height, width) == expected
        for publisher, height, width, settings, expected in CASES
        if publisher == "torchvision" and settings["resize"] == row.resize
    ]
    assert found == [True] * 7
