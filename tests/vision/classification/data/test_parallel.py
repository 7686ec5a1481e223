"""Order, bound and errors of work in threads."""

import threading
import time
from contextlib import closing

import pytest

from official.vision.classification.data.parallel import map_groups

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def tidy():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def slow_square(number):
    time.sleep(0.001 * (number % 3))
    return number**2


@pytest.mark.parametrize(("workers", "ahead"), [(0, 1), (1, 1), (3, 2), (4, 50)])
def test_results_come_by_group_in_order(workers, ahead):
    groups = [[(number,) for number in range(start, start + start % 4)] for start in range(20)]
    expected = [[number**2 for (number,) in group] for group in groups]
    assert list(map_groups(slow_square, iter(groups), workers, ahead)) == expected


@pytest.mark.parametrize("workers", [0, 3])
def test_an_error_comes_at_its_place(workers):
    def divide(number):
        return 1 / number

    found = []
    with pytest.raises(ZeroDivisionError):
        for results in map_groups(divide, ([(n,)] for n in (4, 2, 0, 1)), workers, 8):
            found += results
    assert found == [0.25, 0.5]


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_few_groups_are_taken_ahead(ahead):
    taken = []

    def groups():
        for number in range(30):
            taken.append(number)
            yield [(number,)]

    with closing(map_groups(slow_square, groups(), 2, ahead)) as results:
        for number, _ in enumerate(results):
            assert len(taken) <= number + ahead


def test_what_waits_is_dropped_when_closed():
    go, done = threading.Event(), []

    def wait(number):
        if number:
            go.wait(20)
        done.append(number)

    results = map_groups(wait, ([(number,)] for number in range(50)), 1, 20)
    next(results)
    timer = threading.Timer(0.3, go.set)
    timer.start()
    results.close()
    timer.join()
    assert done in ([0], [0, 1])
