import megengine as mge
import numpy as np
import pytest

from official.vision.classification.data.loader import Batch
from official.vision.classification.data.normalize import Normalize
from official.vision.classification.data.sampler import eval_batches
from official.vision.classification.engine import evaluation as evaluator
from official.vision.classification.engine.evaluation import (
    FlipTta,
    Result,
    cross_entropy,
    evaluate,
    rank_of_label,
)
from official.vision.classification.errors import TrainingError
from official.vision.classification.preprocess import Preprocess

PLAIN = Preprocess(mean=(0, 0, 0), std=(1, 1, 1), resize=None, crop=None)


class Table:
    """A "network" that looks its logits up: the first pixel of an image is its row."""

    def __init__(self, logits):
        self.logits = logits

    def eval(self):
        pass

    def __call__(self, images):
        rows = images.numpy()[:, 0, 0, 0].astype(int) + 256 * images.numpy()[:, 1, 0, 0].astype(int)
        return mge.Tensor(self.logits[rows])


def batches_of(labels, batch_size, rank=0, ranks=1):
    for part in eval_batches(len(labels), batch_size, rank, ranks):
        images = np.zeros((len(part.indices), 3, 1, 1), np.uint8)
        images[:, 0, 0, 0], images[:, 1, 0, 0] = part.indices % 256, part.indices // 256
        yield Batch(images, labels[part.indices], part.indices)


@pytest.fixture()
def table():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1001, 12)).astype(np.float32)
    labels = rng.integers(0, 12, 1001).astype(np.int32)
    return logits, labels


def brute_force(logits, labels, k):
    return sum(
        label in sorted(range(12), key=lambda c: -row[c])[:k] for row, label in zip(logits, labels)
    )


@pytest.mark.parametrize("batch_size", [1, 100, 1001, 5000])
def test_counts_equal_sorting_every_row(table, batch_size):
    logits, labels = table
    result = evaluate(Table(logits), batches_of(labels, batch_size), Normalize(PLAIN), 1001)
    assert result.top1_correct == brute_force(logits, labels, 1)
    assert result.top5_correct == brute_force(logits, labels, 5)
    assert result.total == 1001
    assert result.top1 == 100 * result.top1_correct / 1001


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_number_of_ranks_counts_the_same(table, ranks, monkeypatch):
    logits, labels = table
    whole = evaluate(Table(logits), batches_of(labels, 64), Normalize(PLAIN), 1001)
    parts = []

    def remember(values):
        parts.append(values.copy())
        return np.array([0, 0, 1001]) if len(values) == 3 else values

    monkeypatch.setattr(evaluator, "sum_over_ranks", remember)
    for rank in range(ranks):
        evaluate(Table(logits), batches_of(labels, 64, rank, ranks), Normalize(PLAIN), 1001)
    counts, losses = sum(parts[0::2]), sum(parts[1::2])
    assert counts.tolist() == [whole.top1_correct, whole.top5_correct, 1001]
    assert losses[0] / 1001 == pytest.approx(whole.loss, rel=1e-6)


def test_a_missing_image_is_noticed(table):
    logits, labels = table
    with pytest.raises(TrainingError, match="saw 1001 images of 1002"):
        evaluate(Table(logits), batches_of(labels, 64), Normalize(PLAIN), 1002)


def test_a_network_that_says_nothing_scores_at_chance():
    labels = np.arange(10, dtype=np.int32).repeat(10)
    result = evaluate(
        Table(np.zeros((100, 10), np.float32)), batches_of(labels, 16), Normalize(PLAIN), 100
    )
    assert (result.top1_correct, result.top5_correct) == (10, 50)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite_are_an_error(table, value):
    logits, labels = table
    logits[700, 3] = value
    with pytest.raises(TrainingError, match="not finite"):
        evaluate(Table(logits), batches_of(labels, 64), Normalize(PLAIN), 1001)


def test_rank_breaks_ties_by_class_number():
    logits = np.array([[1, 1, 0, 1]] * 4, np.float32)
    assert rank_of_label(logits, np.arange(4)).tolist() == [0, 1, 3, 2]


def test_cross_entropy_equals_the_definition():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 300, (50, 7)).astype(np.float32)  # exp() alone would overflow
    labels = rng.integers(0, 7, 50)
    exact = logits.astype(np.longdouble)
    expected = np.log(np.exp(exact - exact[np.arange(50), labels][:, None]).sum(1))
    assert np.allclose(cross_entropy(logits, labels), expected.astype(float), rtol=1e-10)


def test_reports_every_batch(table):
    logits, labels = table
    seen = []
    evaluate(Table(logits), batches_of(labels, 400), Normalize(PLAIN), 1001, report=seen.append)
    assert [batch.total for batch in seen] == [400, 400, 201]
    assert sum(batch.top1_correct for batch in seen) == brute_force(logits, labels, 1)


class TwoTables:
    """Logits by an image's first pixel, with the left one of its two columns first."""

    def __init__(self, tables):
        self.tables = tables

    def eval(self):
        pass

    def __call__(self, images):
        pixels = images.numpy()[:, :, 0, :].astype(int)  # (N, 3, 2)
        rows = pixels[:, 0, 0] + 256 * pixels[:, 1, 0]
        mirrored = pixels[:, 2, 0]
        return mge.Tensor(np.stack([self.tables[m][r] for m, r in zip(mirrored, rows)]))


def two_columns(batch):
    """The images doubled, and their right column marked, which is the left one when mirrored."""
    images = np.concatenate([batch.images, batch.images], 3)
    images[:, 2, 0, 1] = 1
    return Batch(images, batch.labels, batch.indices)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_mean_with_the_mirrored_images_is_counted_apart(table, ranks, monkeypatch):
    """Against sorting the means of two softmaxes, row by row."""
    logits, labels = table
    tables = (logits, np.random.default_rng(1).normal(size=logits.shape).astype(np.float32))
    tables[1][np.arange(1001), labels] += 1  # of the two, it knows more
    counts, losses = np.zeros(3, int), 0.0
    monkeypatch.setattr(evaluator, "sum_over_ranks", lambda values: values)
    model, normalize = TwoTables(tables), Normalize(PLAIN)
    for rank in range(ranks):
        batches = [two_columns(batch) for batch in batches_of(labels, 64, rank, ranks)]
        own = sum(map(len, batches))
        tta = FlipTta(model, normalize)
        plain = evaluate(model, batches, normalize, own, watchers=[tta.add])
        result = tta.counter.result(own)
        alone = labels[rank::ranks]
        assert plain.top1_correct == brute_force(logits[rank::ranks], alone, 1)
        counts += (result.top1_correct, result.top5_correct, result.total)
        losses += result.loss * own
    exact = [np.exp(t.astype(float)) for t in tables]
    means = sum(e / e.sum(1, keepdims=True) for e in exact) / 2
    assert counts.tolist() == [brute_force(means, labels, 1), brute_force(means, labels, 5), 1001]
    assert counts[0] not in (brute_force(tables[0], labels, 1), brute_force(tables[1], labels, 1))
    assert losses / 1001 == pytest.approx(-np.log(means[np.arange(1001), labels]).mean(), rel=1e-6)


def test_mirrored_images_that_are_missed_or_not_finite(table):
    logits, labels = table
    tta = FlipTta(Table(logits), Normalize(PLAIN))
    for batch in list(batches_of(labels, 64))[1:]:
        tta.add(batch, logits[batch.indices])
    with pytest.raises(TrainingError, match="saw 937 images of 1001"):
        tta.counter.result(1001)
    logits[700, 3] = np.nan
    with pytest.raises(TrainingError, match="not finite"):
        for batch in batches_of(labels, 64):
            tta.add(batch, logits[batch.indices])


def test_watchers_see_every_batch_and_its_logits(table):
    logits, labels = table
    seen = []
    watchers = [lambda *args: seen.append(args), lambda *args: seen.append(args)]
    evaluate(Table(logits), batches_of(labels, 400), Normalize(PLAIN), 1001, watchers=watchers)
    assert [len(batch) for batch, _ in seen] == [400, 400, 400, 400, 201, 201]
    for batch, values in seen:
        assert np.array_equal(values, logits[batch.indices])


def test_json_form():
    values = Result(3, 4, 8, 0.5).to_dict()
    assert values == {
        "top1_correct": 3,
        "top5_correct": 4,
        "total": 8,
        "loss": 0.5,
        "top1": 37.5,
        "top5": 50.0,
    }
