import numpy as np
import pytest

from official.vision.classification.data.normalize import Normalize
from official.vision.classification.engine.device import use_device
from official.vision.classification.ops.plain import PlainOps
from official.vision.classification.preprocess import PRESETS, Preprocess

CASES = {**PRESETS, "uneven": Preprocess(mean=(0.0, -3.5, 250.25), std=(0.5, 255.0, 1.0))}


@pytest.fixture(autouse=True, scope="module")
def device():
    use_device("cpu")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (5, 3, 17, 31), (2, 3, 16, 16)])
def test_against_float64(name, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    preprocess = CASES[name]
    found = Normalize(preprocess)(images)
    assert tuple(found.shape) == shape and found.dtype == np.float32
    found = found.numpy().astype(np.float64)
    for channel, (mean, std) in enumerate(zip(preprocess.mean, preprocess.std)):
        restored = found[:, channel] * std + mean
        np.testing.assert_allclose(restored, images[:, channel], rtol=0, atol=5e-5)


def test_every_byte_value_is_read_as_unsigned():
    images = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, 1)
    plain = Normalize(Preprocess(mean=(0, 0, 0), std=(1, 1, 1)))
    np.testing.assert_array_equal(plain(images).numpy(), images.astype(np.float32))


def test_memory_layout_does_not_matter():
    stored = np.random.default_rng(0).integers(0, 256, (4, 9, 7, 3), np.uint8)
    for view in (stored.transpose(0, 3, 1, 2), stored[..., ::-1].transpose(0, 3, 1, 2)):
        assert not view.flags.c_contiguous
        normalize = Normalize(PRESETS["torchvision"])
        expected = normalize(np.ascontiguousarray(view)).numpy()
        np.testing.assert_array_equal(normalize(view).numpy(), expected)


def test_the_batch_is_left_as_it_is():
    images = np.full((2, 3, 4, 4), 200, np.uint8)
    tensor = Normalize(PRESETS["megengine"])(images)
    before = tensor.numpy().copy()
    assert (images == 200).all()
    images[:] = 0  # a buffer that is used again must not change what was made of it
    np.testing.assert_array_equal(tensor.numpy(), before)


def test_it_computes_by_the_ops_that_it_is_given():
    class Noted(PlainOps):
        def normalize(self, images, mean, std, whole=False):
            assert images.shape == (2, 4, 5, 3) and images.flags.c_contiguous
            return [mean.tolist(), std.tolist(), whole]

    images, preprocess = np.zeros((2, 3, 4, 5), np.uint8), CASES["uneven"]
    for whole in (False, True):
        found = Normalize(preprocess, Noted(), whole)(images)
        assert found == [[*preprocess.mean], [*preprocess.std], whole]
