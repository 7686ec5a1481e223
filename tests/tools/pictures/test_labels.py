import numpy as np
import pytest

from tools.pictures.labels import Box, place_labels

from .svg import overlap


@pytest.mark.parametrize("seed", range(5))
def test_names_find_room(seed):
    rng = np.random.default_rng(seed)
    points = [tuple(point) for point in rng.uniform((100, 60), (400, 240), (25, 2))]
    points.append(points[0])  # one upon another
    sheet = Box(0, 0, 500, 300)
    labels = place_labels(points, [60.0] * len(points), sheet)
    for index, (label, (x, y)) in enumerate(zip(labels, points)):
        assert label.box.right - label.box.left == pytest.approx(60)
        assert label.box.left >= 0 and label.box.bottom >= 0
        assert label.box.right <= 500 and label.box.top <= 300
        nearest_x = min(max(x, label.box.left), label.box.right)
        nearest_y = min(max(y, label.box.bottom), label.box.top)
        assert label.far or np.hypot(nearest_x - x, nearest_y - y) < 10
        for other, (u, v) in enumerate(points):
            if other != index:
                assert not overlap(label.box, labels[other].box)
                assert not overlap(label.box, (u - 4, v - 4, u + 4, v + 4))


def test_no_room_is_an_error():
    with pytest.raises(ValueError, match="no room for the name"):
        place_labels([(50.0, 20.0)] * 6, [60.0] * 6, Box(0, 0, 100, 40))
