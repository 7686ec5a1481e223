import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from official.vision.classification.data.augment import Augment, TrainTransform
from official.vision.classification.data.folder import load_folder
from official.vision.classification.data.loader import Loader
from official.vision.classification.data.sampler import (
    BatchIndices,
    eval_batches,
    sample_generator,
    train_batches,
)
from official.vision.classification.data.transforms import EvalTransform
from official.vision.classification.errors import DataError
from official.vision.classification.preprocess import Preprocess

pytestmark = pytest.mark.timeout(60)

COUNT = 40
WHOLE = EvalTransform(Preprocess(resize=None, crop=None))
TRAIN = TrainTransform(16, Augment(jitter=0.4))


@pytest.fixture(autouse=True)
def tidy():
    """OpenCV's threads are as they were, and no worker outlives its test."""
    threads, before = cv2.getNumThreads(), set(threading.enumerate())
    yield
    cv2.setNumThreads(threads)
    assert set(threading.enumerate()) <= before


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four classes of ten 24 x 20 images, each of another colour pattern."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        path = root / f"class{index // 10}" / f"{index:02}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(cv2.imencode(".png", rng.integers(0, 256, (20, 24, 3), np.uint8))[1])
    return load_folder(root)


@pytest.fixture
def broken(folder, tmp_path):
    """The same with an image that cannot be read; and its name."""
    paths = list(folder.paths)
    paths[17] = str(tmp_path / "broken.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"not found")
    return type(folder)(folder.root, folder.classes, tuple(paths), folder.labels), paths[17]


def in_turn(batch_size, count=COUNT):
    return list(eval_batches(count, batch_size, 0, 1))


def once(epoch, indices):
    """A batch of images none of which is repeated."""
    return BatchIndices(epoch, np.array(indices), np.zeros(len(indices), np.int64))


def in_order(images):
    """Whether the values lie in memory as (N, H, W, 3)."""
    return images.transpose(0, 2, 3, 1).flags.c_contiguous


def same(found, expected):
    found, expected = list(found), list(expected)
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.indices, other.indices)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_what_is_in_the_files_comes_out(folder, workers):
    batches = [once(0, part) for part in ([3, 39, 17], [0], list(range(40)))]
    loader = Loader(folder, WHOLE, "BGR", batches, workers=workers)
    for batch, (_, indices, _) in zip(loader, batches):
        assert len(batch) == len(indices) and batch.images.shape == (len(indices), 3, 20, 24)
        assert batch.images.dtype == np.uint8 and in_order(batch.images)
        assert batch.labels.dtype == np.int32
        assert batch.labels.tolist() == [index // 10 for index in indices]
        assert batch.indices.tolist() == indices.tolist()
        for image, index in zip(batch.images, indices):
            np.testing.assert_array_equal(image.transpose(1, 2, 0), cv2.imread(folder.paths[index]))


@pytest.mark.parametrize("workers", [0, 2])
def test_channel_order(folder, workers):
    blue = list(Loader(folder, WHOLE, "BGR", in_turn(16), workers=workers))
    red = list(Loader(folder, WHOLE, "RGB", in_turn(16), workers=workers))
    for one, other in zip(blue, red):
        np.testing.assert_array_equal(one.images[:, ::-1], other.images)
        assert (one.images[:, 0] != other.images[:, 0]).any()
        assert in_order(other.images)


@pytest.mark.parametrize(("workers", "prefetch"), [(1, 4), (3, 4), (3, 1), (2, 50)])
def test_the_same_batches_for_any_number_of_workers(folder, workers, prefetch):
    def batches():
        return train_batches(COUNT, 9, 5, 2, 14, 0, 1)

    alone = Loader(folder, TRAIN, "RGB", batches(), 5, workers=0)
    same(Loader(folder, TRAIN, "RGB", batches(), 5, workers, prefetch), alone)


def test_the_same_image_in_any_batch_and_on_any_rank(folder):
    """What becomes of an image depends on the seed, the epoch and the image, and nothing else."""
    alone = {}
    for batch in Loader(folder, TRAIN, "BGR", train_batches(COUNT, 12, 5, 0, 3, 0, 1), 5):
        alone.update(zip(batch.indices.tolist(), batch.images))
    assert len(alone) == 36
    for rank in range(3):
        batches = train_batches(COUNT, 4, 5, 0, 3, rank, 3)
        for batch in Loader(folder, TRAIN, "BGR", batches, 5):
            for index, image in zip(batch.indices.tolist(), batch.images):
                np.testing.assert_array_equal(image, alone.pop(index))
    assert not alone


def test_each_image_is_given_its_own_generator(folder):
    drawn = {}

    def record(image, rng):
        drawn[image.tobytes()] = rng.random()
        return image

    list(Loader(folder, record, "BGR", [once(3, range(COUNT))], 11))
    for index, path in enumerate(folder.paths):
        expected = sample_generator(11, 3, index).random()
        assert drawn[cv2.imread(path).tobytes()] == expected


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_repetitions_of_an_image(folder, workers):
    """Each with a generator of its own, in the order asked for, wherever parts are cut."""
    indices, copies = np.arange(60) // 3 % COUNT, np.arange(60) % 3
    batches = [BatchIndices(2, indices, copies), BatchIndices(2, indices[::-1], copies[::-1])]
    first, second = Loader(folder, TRAIN, "BGR", batches, 11, workers=workers)
    for index, copy, image in zip(indices, copies, first.images):
        rng = sample_generator(11, 2, int(index), int(copy))
        expected = TRAIN(cv2.imread(folder.paths[index]), rng)
        np.testing.assert_array_equal(image.transpose(1, 2, 0), expected)
    assert len({image.tobytes() for image in first.images}) == 60
    np.testing.assert_array_equal(second.images, first.images[::-1])
    assert first.labels.tolist() == (indices // 10).tolist()


def test_repetitions_in_a_row_are_decoded_once(folder, monkeypatch):
    read = []

    def note(path):
        read.append(path)
        return cv2.imread(path)

    def note_bytes(path):
        read.append(path)
        return Path(path).read_bytes()

    monkeypatch.setattr("official.vision.classification.data.dataset.read_image", note)
    monkeypatch.setattr("official.vision.classification.data.dataset.read_bytes", note_bytes)
    batch = BatchIndices(0, np.array([4, 4, 4, 9, 4, 2, 2]), np.array([0, 1, 2, 0, 3, 0, 1]))
    list(Loader(folder, TRAIN, "BGR", [batch], workers=0))
    assert read == [folder.paths[index] for index in (4, 9, 4, 2)]


def test_another_seed_or_epoch_gives_other_images(folder):
    seen = set()
    for seed, epoch in [(0, 0), (0, 1), (1, 0)]:
        (batch,) = Loader(folder, TRAIN, "BGR", [once(epoch, range(4))], seed)
        seen |= {image.tobytes() for image in batch.images}
    assert len(seen) == 12


def test_a_loader_can_be_used_again_and_twice_at_once(folder):
    loader = Loader(folder, TRAIN, "BGR", in_turn(7))
    first = list(loader)
    same(loader, first)
    pairs = list(zip(loader, loader))
    same([one for one, _ in pairs], first)
    same([other for _, other in pairs], first)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("prefetch", [1, 4])
def test_an_unreadable_image_is_named_after_the_batches_before_it(broken, workers, prefetch):
    folder, name = broken
    batches = iter(Loader(folder, WHOLE, "BGR", in_turn(4), workers=workers, prefetch=prefetch))
    delivered = []
    with pytest.raises(DataError) as caught:
        for batch in batches:
            delivered += batch.indices.tolist()
    assert delivered == list(range(16))
    assert str(caught.value).startswith(f"{name}: ")
    assert next(batches, None) is None


@pytest.mark.parametrize("workers", [0, 3])
def test_an_image_that_the_transform_refuses_is_named(folder, workers):
    transform = EvalTransform(Preprocess(resize=None, crop=21))
    with pytest.raises(DataError) as caught:
        list(Loader(folder, transform, "BGR", [once(0, [6])], workers=workers))
    assert str(caught.value).startswith(f"{folder.paths[6]}: ")
    assert "24x20" in str(caught.value) and "21" in str(caught.value)


@pytest.mark.parametrize("workers", [0, 3])
def test_any_other_error_reaches_the_consumer_too(folder, workers):
    def fail(image, rng):
        raise ZeroDivisionError("the transform's own")

    with pytest.raises(ZeroDivisionError, match="the transform's own"):
        list(Loader(folder, fail, "BGR", in_turn(4), workers=workers))


@pytest.mark.parametrize("workers", [0, 3])
def test_images_of_differing_size_are_named(folder, tmp_path, workers):
    paths = list(folder.paths)
    paths[5] = str(tmp_path / "wide.png")
    cv2.imwrite(paths[5], np.zeros((20, 25, 3), np.uint8))
    mixed = type(folder)(folder.root, folder.classes, tuple(paths), folder.labels)
    with pytest.raises(DataError) as caught:
        list(Loader(mixed, WHOLE, "BGR", in_turn(8), workers=workers))
    message = str(caught.value)
    assert message.startswith(f"{paths[5]}: ") and "(20, 25)" in message and "(20, 24)" in message
    for batch in Loader(mixed, WHOLE, "BGR", in_turn(1), workers=workers):
        assert len(batch) == 1  # one by one they are fine


@pytest.mark.parametrize("leave", ["close", "forget", "error"])
def test_a_consumer_that_stops_early_leaves_no_thread(folder, leave):
    before = set(threading.enumerate())
    if leave == "error":
        with pytest.raises(RuntimeError, match="enough"):
            for _ in Loader(folder, TRAIN, "BGR", in_turn(2), workers=3):
                assert set(threading.enumerate()) > before
                raise RuntimeError("enough")
    else:
        batches = iter(Loader(folder, TRAIN, "BGR", in_turn(2), workers=3))
        next(batches)
        assert set(threading.enumerate()) > before
        if leave == "close":
            batches.close()
        else:
            del batches
    assert set(threading.enumerate()) == before


def test_what_is_queued_is_not_done_for_a_consumer_that_has_left(folder):
    """One thread is held in its part of the second batch; the parts behind it are dropped."""
    left, done = threading.Event(), []

    def hold(image, rng):
        if len(done) >= 8:
            left.wait(20)
        done.append(1)
        return image

    batches = iter(Loader(folder, hold, "BGR", in_turn(8), workers=1, prefetch=5))
    next(batches)
    timer = threading.Timer(0.5, left.set)
    timer.start()
    batches.close()
    timer.join()
    assert 8 <= len(done) <= 16


@pytest.mark.parametrize("prefetch", [1, 2, 4])
def test_no_more_batches_are_under_way_than_prefetch(folder, prefetch):
    started, delivered, excess = set(), [], []
    lock = threading.Lock()
    positions = {cv2.imread(path).tobytes(): index for index, path in enumerate(folder.paths)}

    def record(image, rng):
        with lock:
            started.add(positions[image.tobytes()] // 4)
            excess.append(len(started) - len(delivered))
        return image

    for batch in Loader(folder, record, "BGR", in_turn(4), workers=3, prefetch=prefetch):
        time.sleep(0.01)  # a slow consumer, so that the threads get as far as they may
        with lock:
            delivered.append(batch)
    assert len(delivered) == 10
    assert prefetch / 2 < max(excess) <= prefetch


def test_threads_work_at_the_same_time(folder):
    """Three images meet, which one thread alone could never make them do."""
    barrier = threading.Barrier(3)

    def meet(image, rng):
        barrier.wait(20)
        return image

    assert len(list(Loader(folder, meet, "BGR", in_turn(6, 36), workers=3))) == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_opencv_starts_no_threads_of_its_own(folder, workers):
    cv2.setNumThreads(2)
    seen = set()

    def look(image, rng):
        seen.add(cv2.getNumThreads())
        return image

    list(Loader(folder, look, "BGR", in_turn(10), workers=workers))
    assert seen == {1}


def test_no_batches(folder):
    for workers in (0, 2):
        assert list(Loader(folder, WHOLE, "BGR", [], workers=workers)) == []
