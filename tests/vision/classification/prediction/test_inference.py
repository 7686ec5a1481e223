import io
import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import megengine as mge
import megengine.module as M
import numpy as np
import pytest

from official.vision.classification import get_model, inference_model
from official.vision.classification.engine.scoring import ClassScore
from official.vision.classification.errors import DataError, TrainingError, UsageError, WeightsError
from official.vision.classification.ops.plain import PlainOps
from official.vision.classification.prediction import inference
from official.vision.classification.preprocess import Preprocess
from official.vision.classification.zoo import rows as rows
from official.vision.classification.zoo import trained
from official.vision.classification.zoo.trained import Network, PretrainedConfig
from tests import documents
from tests.scripts import ROOT

PLAIN = Preprocess("BGR", (0, 0, 0), (1, 1, 1), resize=None, crop=None)


def network_of(function, names, preprocess=PLAIN):
    config = PretrainedConfig(preprocess, names, arch="resnet18", num_classes=len(names))
    return Network(function, config)


def channel_means(images):
    return mge.functional.log(images.mean(axis=(2, 3)))


def classify(network, image, top_k=5):
    found = inference._classify(network, image, top_k)["top_k"]
    return [ClassScore(s["pred_label"], s["pred_class"], s["pred_score"]) for s in found]


def coloured(blue, green, red, height=5, width=7):
    image = np.zeros((height, width, 3), np.uint8)
    image[:] = (blue, green, red)
    return image


def test_probabilities_are_the_softmax_best_first():
    image = coloured(20, 50, 30)  # softmax of a log is the share
    guesses = classify(network_of(channel_means, ("b", "g", "r")), image)
    assert [(g.name, g.index) for g in guesses] == [("g", 1), ("r", 2), ("b", 0)]
    assert [g.probability for g in guesses] == pytest.approx([0.5, 0.3, 0.2], rel=1e-5)
    assert len(classify(network_of(channel_means, ("b", "g", "r")), image, top_k=2)) == 2


def test_channel_order_is_the_weights():
    rgb = replace(PLAIN, order="RGB")
    best = classify(network_of(channel_means, ("r", "g", "b"), rgb), coloured(20, 50, 30))
    assert [g.name for g in best] == ["g", "r", "b"]


def test_outputs_that_are_not_finite_are_an_error():
    image = coloured(0, 0, 0)  # log(0)
    with pytest.raises(TrainingError, match="not finite"):
        classify(network_of(channel_means, ("b", "g", "r")), image)


def test_images_are_normalised_by_the_networks_operations():
    class Noted(PlainOps):
        def normalize(self, images, mean, std, whole=False):
            return super().normalize(images[..., ::-1].copy(), mean, std, whole)

    def function(images):
        return channel_means(images)

    function.ops = Noted()
    best = classify(network_of(function, ("b", "g", "r")), coloured(20, 50, 30))
    assert [g.probability for g in best] == pytest.approx([0.5, 0.3, 0.2], rel=1e-5)
    assert [g.name for g in best] == ["g", "b", "r"]


class ChannelMeans(M.Module):
    """A network whose answer is a picture's colour; ``fc`` has a row for each of its classes."""

    def __init__(self, config=None):
        super().__init__()
        self.fc = M.Linear(1, 3)
        self.bn = M.BatchNorm2d(3, affine=False)
        if config is not None:
            self.pretrained_config = config

    def forward(self, x):
        assert not self.training and not self.bn.training
        return channel_means(x)


@pytest.fixture
def model():
    return ChannelMeans(PretrainedConfig(PLAIN, ("b", "g", "r")))


def test_what_is_told_of_a_network(model):
    told = inference_model(model, coloured(20, 50, 30))
    assert told["top_k"] == [
        {"pred_label": 1, "pred_class": "g", "pred_score": pytest.approx(0.5, rel=1e-5)},
        {"pred_label": 2, "pred_class": "r", "pred_score": pytest.approx(0.3, rel=1e-5)},
        {"pred_label": 0, "pred_class": "b", "pred_score": pytest.approx(0.2, rel=1e-5)},
    ]
    first = told.pop("top_k")[0]
    assert told == first
    assert (type(told["pred_label"]), type(told["pred_score"])) == (int, float)


def test_only_the_likeliest_are_told(model):
    for top_k in (1, 2, 3, 9):
        told = inference_model(model, coloured(20, 50, 30), top_k=top_k)
        assert [guess["pred_class"] for guess in told["top_k"]] == ["g", "r", "b"][:top_k]
    for top_k in (0, -1):
        with pytest.raises(UsageError, match=f"top_k is {top_k}; expected 1 or more"):
            inference_model(model, coloured(20, 50, 30), top_k=top_k)


def test_a_path_or_pixels(model, tmp_path):
    image = np.random.default_rng(0).integers(1, 256, (9, 6, 3), np.uint8)
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), image)
    told = inference_model(model, image)
    assert inference_model(model, str(path)) == inference_model(model, path) == told
    mirrored = inference_model(model, image[:, ::-1])
    assert mirrored["pred_score"] == pytest.approx(told["pred_score"])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
    ids=lambda image: str((image.shape, image.dtype.name)),
)
def test_pixels_of_another_kind_are_refused(model, image):
    with pytest.raises(DataError, match=r"expected uint8 of \(H, W, 3\), BGR") as caught:
        inference_model(model, image)
    assert str(image.shape) in str(caught.value) and str(image.dtype) in str(caught.value)


def test_a_picture_that_cannot_be_read(model, tmp_path):
    with pytest.raises(DataError, match="no.png: no such image"):
        inference_model(model, tmp_path / "no.png")


def modes(model):
    return [module.training for module in model.modules()]


@pytest.mark.parametrize(("whole", "bn"), itertools.product([False, True], repeat=2))
def test_every_part_is_left_in_the_mode_it_is_in(model, whole, bn):
    """Normalisations that were frozen for fine-tuning stay frozen."""
    model.train(whole)
    model.bn.train(bn)
    before = modes(model)
    inference_model(model, coloured(20, 50, 30))
    assert modes(model) == before
    with pytest.raises(TrainingError):
        inference_model(model, coloured(0, 0, 0))
    assert modes(model) == before


def test_a_network_that_does_not_know_how_its_images_are_prepared():
    for model in (ChannelMeans(), get_model("resnet20_cifar")):
        with pytest.raises(UsageError, match="does not know how its images are prepared"):
            inference_model(model, coloured(20, 50, 30))


def test_classes_that_are_not_known_are_numbered(model):
    model.pretrained_config = PretrainedConfig(PLAIN, None)
    assert inference_model(model, coloured(20, 50, 30))["pred_class"] == "class_1"


def test_a_classifier_put_in_later_has_other_classes(model):
    model.pretrained_config = PretrainedConfig(PLAIN, ("b", "g", "r", "alpha"))
    assert inference_model(model, coloured(20, 50, 30))["pred_class"] == "class_1"


def test_a_network_without_its_classifier(model):
    model.fc = M.Sequential(M.Linear(1, 3))
    with pytest.raises(UsageError, match="no classifier, a Linear layer called fc"):
        inference_model(model, coloured(20, 50, 30))
    del model.fc
    with pytest.raises(UsageError, match="no classifier"):
        inference_model(model, coloured(20, 50, 30))


@pytest.fixture
def published(monkeypatch, tmp_path):
    """A row of resnet20_cifar whose weights are there already."""
    path = tmp_path / "published.pkl"
    mge.save(get_model("resnet20_cifar").state_dict(), str(path))
    base = rows.BY_NAME["resnet18_8xb16_cifar10"]
    row = replace(base, name="row", arch="resnet20_cifar")
    monkeypatch.setattr(rows, "ROWS", (row,))
    monkeypatch.setitem(rows.BY_NAME, row.name, row)
    monkeypatch.setattr(trained, "_fetch", lambda model, row: path)
    return path


def test_a_name_and_a_filled_network_say_the_same(published):
    """And it is what float64 makes of the logits of an image prepared by hand."""
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    told = inference_model("resnet20_cifar", image, top_k=10)
    assert inference_model("row", image, top_k=10) == told
    model = get_model("row", pretrained=True)
    assert inference_model(model, image, top_k=10) == told
    assert model.training  # as it was

    mean, std = np.array([125.307, 122.961, 113.8575]), np.array([51.5865, 50.847, 51.255])
    x = ((image[:, :, ::-1] - mean) / std).transpose(2, 0, 1)[None]
    model.eval()
    logits = model(mge.Tensor(x.astype(np.float32))).numpy()[0].astype(np.float64)
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    found = {guess["pred_label"]: guess["pred_score"] for guess in told["top_k"]}
    assert [found[index] for index in range(10)] == pytest.approx(expected.tolist(), rel=1e-3)
    names = "airplane automobile bird cat deer dog frog horse ship truck".split()
    for guess in told["top_k"]:
        assert guess["pred_class"] == names[guess["pred_label"]]


def test_names_without_weights_are_refused(published, tmp_path):
    image = coloured(20, 50, 30)
    with pytest.raises(UsageError, match="did you mean .*resnet20_cifar"):
        inference_model("resnet20", image)
    with pytest.raises(UsageError, match="no published weights for resnet32_cifar") as caught:
        inference_model("resnet32_cifar", image)
    assert "--" not in str(caught.value)  # there are no flags here
    published.unlink()
    with pytest.raises(WeightsError, match="no such file"):
        inference_model("row", image)


@pytest.fixture
def photo(tmp_path):
    """A file with an EXIF tag that turns it by a quarter, and its pixels in the file."""
    PIL = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(3).integers(1, 256, (9, 6, 3), np.uint8)
    image = PIL.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    image.save(path, exif=exif)
    return path, np.rot90(pixels[:, :, ::-1], -1)


class TopLeft(ChannelMeans):
    """Sees which pixel is where."""

    def forward(self, x):
        return super().forward(x[:, :, :2, :2])


def test_the_same_image_in_any_form(photo):
    from PIL import Image

    path, upright = photo
    model = TopLeft(PretrainedConfig(PLAIN, ("b", "g", "r")))
    expected = inference_model(model, np.ascontiguousarray(upright))
    data = path.read_bytes()
    with path.open("rb") as file, Image.open(path) as opened:
        forms = [path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data)]
        forms += [file, opened, opened.convert("RGBA")]
        for form in forms:
            assert inference_model(model, form) == expected, type(form)
        file.seek(0)
        assert inference_model(model, forms[:3]) == [expected] * 3
        assert (
            inference_model(model, tuple(forms[6:8]), top_k=1)
            == [{**expected, "top_k": expected["top_k"][:1]}] * 2
        )
    assert inference_model(model, []) == []


def test_grey_and_palette_pil_images(model):
    from PIL import Image

    grey = Image.fromarray(np.full((4, 5), 77, np.uint8))
    expected = inference_model(model, coloured(77, 77, 77))
    for image in (grey, grey.convert("P"), grey.convert("LA"), grey.convert("1").convert("L")):
        found = inference_model(model, image)["pred_score"]
        assert found == pytest.approx(expected["pred_score"], abs=1e-6)
    deep = Image.fromarray(np.full((4, 5), 40_000, np.int32))
    with pytest.raises(DataError, match="a PIL image of mode I: scale it to 8 bits"):
        inference_model(model, deep)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "bytes of an image: the file is empty"),
        (bytes(100_000), "bytes of an image: not an image: it begins with zeros"),
        (io.StringIO("text"), "open file: gives str, not bytes; open it with mode 'rb'"),
        ({"a": 1}, "an image is of type dict; expected a path, bytes, an open file, a PIL"),
        ([coloured(1, 2, 3), None], "an image is of type NoneType; expected"),
        ("https://host/a.jpg", "https://host/a.jpg: is a web address; download the image"),
    ],
    ids=["empty", "zeros", "text", "dict", "a list with None", "address"],
)
def test_what_is_no_image_is_said_in_a_line(model, image, message):
    with pytest.raises(DataError) as caught:
        inference_model(model, image)
    assert str(caught.value).startswith(message) and len(str(caught.value)) < 200


def test_a_damaged_pil_image(model):
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(
        data, "png"
    )
    with pytest.raises(DataError, match="a PIL image cannot be read"):
        inference_model(model, Image.open(io.BytesIO(data.getvalue()[:2000])))


def test_another_thread_is_told_what_megengine_wants():
    """MegEngine asserts something about its dispatcher there."""
    model = get_model("resnet20_cifar", pretrained=True)
    image = np.zeros((32, 32, 3), np.uint8)
    with ThreadPoolExecutor(1) as pool:
        for call in (
            lambda: inference_model(model, image),
            lambda: inference_model("resnet20_cifar", image),
            lambda: get_model("resnet20_cifar"),
            lambda: get_model("resnet20_cifar", pretrained=True),
        ):
            with pytest.raises(UsageError, match="only in the thread that has imported it"):
                pool.submit(call).result()
    assert inference_model(model, image)["pred_class"]


def test_a_thread_that_imports_megengine_serves_the_others():
    """The program of docs/export.md, asked from four threads."""
    (program,) = (
        block.text
        for block in documents.blocks("docs/export.md")
        if "megengine_thread" in block.text
    )
    program += """
import numpy as np, threading
found = []
images = [np.full((32, 32, 3), value, np.uint8) for value in (0, 80, 160, 255)]
threads = [threading.Thread(target=lambda i=i: found.append(answer(i))) for i in images]
[one.start() for one in threads], [one.join() for one in threads]
print(len(found), all(one["pred_class"] for one in found))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=200, cwd=ROOT
    )
    assert done.stdout.split() == ["4", "True"], done.stderr
