import base64
from collections import Counter

import cv2
import numpy as np
import pytest

from official.vision.classification.testing.report.gallery import (
    choose,
    most_uncertain,
    surest_mistakes,
    thumbnail,
)
from tests.vision.classification.testing.report.reports import answers_to, logits_of


def test_the_surest_mistakes_come_first():
    logits, labels = logits_of(200, 6, skill=1.0)
    answers = answers_to(logits, labels)
    found = surest_mistakes(answers)
    assert sorted(found) == [i for i in range(200) if logits[i].argmax() != labels[i]]
    exact = np.exp(logits.astype(float))
    confidence = (exact.max(1) / exact.sum(1))[found]
    assert (np.diff(confidence) <= 1e-7).all() and confidence[0] > 0.6 > confidence[-1]


def test_the_most_uncertain_come_first():
    logits = np.array([[4, 0, 0], [0, 0, 0], [1, 1, 0], [9, 0, 0]], np.float32)
    assert most_uncertain(answers_to(logits, np.zeros(4, np.int32))) == [1, 2, 0, 3]


@pytest.mark.parametrize(
    ("classes", "each", "count"),
    [(2, 48, 120), (10, 9, 114), (96, 1, 120), (97, 0, 24), (1000, 0, 24)],
)
def test_every_class_gets_its_share_of_the_room(classes, each, count):
    logits, labels = logits_of(1500, classes)
    answers = answers_to(logits, labels)
    order = np.random.default_rng(1).permutation(1500).tolist()
    chosen = choose(order, answers)
    assert chosen[:24] == order[:24] and len(chosen) == len(set(chosen)) == count
    further = chosen[24:]
    assert further == sorted(further, key=order.index)
    if each:
        assert set(Counter(labels[further].tolist()).values()) == {each}
    for label in range(classes):
        rest = [index for index in order[24:] if labels[index] == label]
        assert [index for index in further if labels[index] == label] == rest[:each]


def test_fewer_images_than_room():
    answers = answers_to(*logits_of(7, 3))
    assert choose([4, 2], answers) == [4, 2]
    assert choose([], answers) == []


def decoded(uri):
    kind, data = uri.split(";base64,")
    data = np.frombuffer(base64.b64decode(data), np.uint8)
    return kind, cv2.imdecode(data, cv2.IMREAD_COLOR)


def test_tiny_images_are_kept_as_they_are():
    image = np.random.default_rng(0).integers(0, 255, (32, 48, 3), np.uint8)
    kind, read = decoded(thumbnail(image))
    assert kind == "data:image/png" and np.array_equal(read, image)


@pytest.mark.parametrize(
    ("shape", "small"),
    [
        ((400, 800), (80, 160)),
        ((800, 400), (160, 80)),
        ((100, 90), (100, 90)),
        ((3, 5000), (1, 160)),
        ((5000, 3), (160, 1)),
    ],
)
def test_others_become_small_jpegs(shape, small):
    image = np.full((*shape, 3), (250, 20, 120), np.uint8)
    image[: shape[0] // 2, : shape[1] // 2] = (10, 200, 60)
    uri = thumbnail(image)
    kind, read = decoded(uri)
    assert kind == "data:image/jpeg" and read.shape == (*small, 3)
    reduced = cv2.resize(image, small[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(read.astype(int) - reduced).mean() < 12


def test_even_noise_stays_small():
    noise = np.random.default_rng(0).integers(0, 255, (160, 160, 3), np.uint8)
    assert len(thumbnail(noise)) < 30_000
