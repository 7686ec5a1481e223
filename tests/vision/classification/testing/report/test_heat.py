"""Heat maps of a report against the class activation map, computed pixel by pixel."""

import cv2
import numpy as np
import pytest

from official.vision.classification.data.normalize import Normalize
from official.vision.classification.engine.device import prepare
from official.vision.classification.inference import EXAMPLE
from official.vision.classification.testing.report.heat import HeatMaps
from official.vision.classification.zoo.trained import NetworkConfig, open_network
from tests.vision.classification.testing.report.reports import Page, draw_folder, logits_of, write


@pytest.fixture(scope="module")
def draw():
    network = open_network(NetworkConfig("resnet20_cifar"))
    model = prepare(network.model, "cpu", "fp32")
    return HeatMaps(model, Normalize(network.preprocess, model.ops), network.preprocess)


def test_it_is_of_the_class_that_is_asked_for(draw):
    """Red is where the class's weights meet large activations; elsewhere the image is as it was."""
    image = cv2.imread(str(EXAMPLE))
    cat, ship = draw(image, 3), draw(image, 8)
    assert cat.shape == ship.shape and max(cat.shape) == 320
    assert np.abs(cat.astype(int) - ship).mean() > 5
    height, width = cat.shape[:2]
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(int)
    change = np.abs(cat - small).sum(2)
    assert np.median(change[change < np.percentile(change, 10)]) < 60 < np.percentile(change, 98)


def test_small_images_keep_their_size(draw):
    assert draw(np.zeros((20, 30, 3), np.uint8), 0).shape == (20, 30, 3)


def test_the_first_of_the_worst_have_one(tmp_path):
    """Of the class that was answered, beside the image."""
    folder = draw_folder(tmp_path / "val", ("a", "b"), 40, size=60)
    asked = []

    def heat(image, index):
        asked.append(index)
        return image // 2

    logits, labels = logits_of(80, 2, skill=0.0)
    page = Page(write(tmp_path / "report", folder, logits, heat=heat))
    assert len(page.all("div", class_="pair")) == len(asked) == 24
    wide = page.all("li", class_="wide")
    assert [e["attributes"]["data-guess"] for e in wide] == list(map(str, asked))
    assert all(e["attributes"]["data-guess"] != e["attributes"]["data-label"] for e in wide)
