"""What ranks compute in the tests; new processes find it by this module's name."""

from pathlib import Path

import megengine.distributed as dist
import megengine.module as M
import numpy as np
from megengine import Parameter, Tensor
from megengine.autodiff import GradManager

from official.vision.classification.engine.device import use_device
from official.vision.classification.ops.build import load_kernels
from official.vision.classification.ops.native import NativeOps


def normalise(folder, starts, x, shortcut, dy, gamma):
    """This rank's images, from starts[rank], by a norm synchronised in three groups."""
    use_device("cpu")
    rank = dist.get_rank()
    mine = slice(starts[rank], starts[rank + 1])
    groups = {"world": dist.WORLD, "group": dist.new_group([0, 1]), "alone": dist.new_group([rank])}
    found = {}
    for name, group in groups.items():
        norm = M.SyncBatchNorm(x.shape[1], momentum=0.0, group=group)
        norm.weight = Parameter(gamma)
        found.update(_normalise(name, norm, x[mine], shortcut[mine], dy[mine]))
    np.savez(Path(folder) / f"{rank}.npz", **found)
    return 0


def _normalise(name, norm, x, shortcut, dy):
    ops = NativeOps(load_kernels(1))
    x, shortcut = Tensor(x), Tensor(shortcut)
    manager = GradManager().attach([x, shortcut, norm.weight, norm.bias])
    with manager:
        y = ops.conv_norm(M.Identity(), norm, x, shortcut, relu=True)
        manager.backward(y, Tensor(dy))
    return {
        f"{name}-y": y.numpy(),
        f"{name}-dx": x.grad.numpy(),
        f"{name}-dshortcut": shortcut.grad.numpy(),
        f"{name}-dgamma": norm.weight.grad.numpy().ravel(),
        f"{name}-dbeta": norm.bias.grad.numpy().ravel(),
        f"{name}-mean": norm.running_mean.numpy().ravel(),
        f"{name}-variance": norm.running_var.numpy().ravel(),
    }
