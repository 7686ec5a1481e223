import numpy as np
import pytest

from official.vision.classification.distributed.launch import Topology, launch

from . import jobs, reference
from .values import error, normal


@pytest.mark.parametrize("starts", [(0, 3, 6), (0, 1, 6)], ids=["halves", "unequal"])
def test_a_synchronised_norm_is_one_over_all_images(kernels, tmp_path, starts):
    """Two processes against float64 on the whole batch."""
    shape = (6, 20, 5, 4)
    x, shortcut = normal(*shape, mean=2), normal(*shape, seed=1)
    x[:3] += 1  # the ranks' means differ, which is a part of the variance
    dy, gamma = normal(*shape, seed=2), normal(1, 20, 1, 1, seed=3)
    arguments = (str(tmp_path), starts, x, shortcut, dy, gamma)
    assert launch(jobs.normalise, Topology(ngpus=2), *arguments, device_type="cpu") == 0
    y, gradients, (mean, variance) = reference.batch_norm(
        x, gamma, np.zeros(20), 1e-5, shortcut=shortcut, relu=True
    )
    dx, dgamma, dbeta, dshortcut = gradients(dy)
    ranks = [dict(np.load(tmp_path / f"{rank}.npz")) for rank in (0, 1)]
    for name in ("world", "group"):
        whole = {
            key: np.concatenate([rank[f"{name}-{key}"] for rank in ranks])
            for key in ("y", "dx", "dshortcut")
        }
        assert error(whole["y"], y) < 2e-6
        assert error(whole["dx"], dx) < 5e-6
        assert error(whole["dshortcut"], dshortcut) < 1e-6
        # Each rank has the part of its own images; the sum is taken with all other gradients.
        assert error(sum(rank[f"{name}-dgamma"] for rank in ranks), dgamma) < 5e-6
        assert error(sum(rank[f"{name}-dbeta"] for rank in ranks), dbeta) < 5e-6
        for rank in ranks:
            assert error(rank[f"{name}-mean"], mean) < 1e-6
            assert error(rank[f"{name}-variance"], variance * 120 / 119) < 1e-6
    for rank, start, end in zip(ranks, starts, starts[1:]):
        own = x[start:end].astype(np.float64)
        assert error(rank["alone-mean"], own.mean((0, 2, 3))) < 1e-6
        assert (
            error(rank["alone-variance"], own.transpose(1, 0, 2, 3).reshape(20, -1).var(1, ddof=1))
            < 1e-6
        )
