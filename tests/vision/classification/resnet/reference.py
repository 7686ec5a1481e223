"""The networks in float64 numpy, from their definitions and a state dict."""

import megengine.module as M
import numpy as np


def conv(x, weight, stride, padding, dilation=1):
    """``weight`` is (O, I, k, k) or grouped 5-D."""
    if weight.ndim == 4:
        weight = weight[None]
    groups, out_channels, _, size, _ = weight.shape
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    count, _, height, width = x.shape
    reach = dilation * (size - 1) + 1
    out_height, out_width = (height - reach) // stride + 1, (width - reach) // stride + 1
    x = x.reshape(count, groups, -1, height, width)
    out = np.zeros((count, groups, out_channels, out_height, out_width))
    for i in range(size):
        for j in range(size):
            rows = slice(i * dilation, i * dilation + stride * (out_height - 1) + 1, stride)
            columns = slice(j * dilation, j * dilation + stride * (out_width - 1) + 1, stride)
            out += np.einsum("ngihw,goi->ngohw", x[:, :, :, rows, columns], weight[:, :, :, i, j])
    return out.reshape(count, -1, out_height, out_width)


def relu(x):
    return np.maximum(x, 0)


def max_pool(x, padding):
    """3x3 windows at every second pixel; ``padding`` is ((top, bottom), (left, right))."""
    x = np.pad(x, ((0, 0), (0, 0), *padding), constant_values=-np.inf)
    height, width = (x.shape[2] - 3) // 2 + 1, (x.shape[3] - 3) // 2 + 1
    out = np.empty((*x.shape[:2], height, width))
    for i, j in np.ndindex(height, width):
        out[:, :, i, j] = x[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((2, 3))
    return out


def same_padding(length):
    """MindSpore's pad_mode "same" of a 3-wide window at stride 2: (before, after)."""
    windows = -(-length // 2)
    total = max((windows - 1) * 2 + 3 - length, 0)
    return total // 2, total - total // 2


def halving_mean(x):
    """2x2 squares at every second pixel; beyond the edge there is nothing, and it counts nothing.

    torch.nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False).
    """
    height, width = -(-x.shape[2] // 2), -(-x.shape[3] // 2)
    out = np.empty((*x.shape[:2], height, width))
    for i, j in np.ndindex(height, width):
        out[:, :, i, j] = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((2, 3))
    return out


class Reference:
    """The network that the state dict's names describe: v1, its C and D forms, the CIFAR stem."""

    def __init__(self, state):
        self.state = {name: value.astype(np.float64) for name, value in state.items()}

    def has(self, name):
        return f"{name}.weight" in self.state

    def conv(self, x, name, stride=1):
        weight = self.state[f"{name}.weight"]
        return conv(x, weight, stride, weight.shape[-1] // 2)

    def bn(self, x, name):
        gamma, beta, mean, var = (
            self.state[f"{name}.{part}"].reshape(1, -1, 1, 1)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(var + 1e-5) * gamma + beta

    def conv_bn(self, x, conv, bn, stride=1):
        return self.bn(self.conv(x, conv, stride), bn)

    def shortcut(self, x, name, stride):
        name = f"{name}.downsample"
        if self.has(f"{name}.2"):  # ResNet-D
            x = halving_mean(x) if stride == 2 else x
            return self.conv_bn(x, f"{name}.1", f"{name}.2")
        if self.has(f"{name}.1"):
            return self.conv_bn(x, f"{name}.0", f"{name}.1", stride)
        if self.has(f"{name}.0"):
            return self.conv(x, f"{name}.0", stride)
        return x

    def block(self, x, name, stride):
        shortcut = self.shortcut(x, name, stride)
        if self.has(f"{name}.conv3"):
            x = relu(self.conv_bn(x, f"{name}.conv1", f"{name}.bn1"))
            x = relu(self.conv_bn(x, f"{name}.conv2", f"{name}.bn2", stride))
            x = self.conv_bn(x, f"{name}.conv3", f"{name}.bn3")
        else:
            x = relu(self.conv_bn(x, f"{name}.conv1", f"{name}.bn1", stride))
            x = self.conv_bn(x, f"{name}.conv2", f"{name}.bn2")
        return relu(x + shortcut)

    def stem(self, x):
        if self.has("conv1.6"):
            x = relu(self.conv_bn(x, "conv1.0", "conv1.1", 2))
            x = relu(self.conv_bn(x, "conv1.3", "conv1.4"))
            return relu(self.conv_bn(x, "conv1.6", "bn1"))
        large = self.state["conv1.weight"].shape[-1] == 7
        return relu(self.conv_bn(x, "conv1", "bn1", 2 if large else 1))

    def pool(self, x):
        small = not self.has("conv1.6") and self.state["conv1.weight"].shape[-1] == 3
        return x if small else max_pool(x, ((1, 1), (1, 1)))

    def features(self, x, layers):
        """The last stage's output."""
        x = self.pool(self.stem(x.astype(np.float64)))
        for stage, blocks in enumerate(layers, 1):
            for index in range(blocks):
                x = self.block(x, f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1)
        return x

    def __call__(self, x, layers):
        pooled = self.features(x, layers).mean((2, 3))
        return pooled @ self.state["fc.weight"].T + self.state["fc.bias"]


class MindCVReference(Reference):
    """ResNet v2 as MindCV trained it."""

    def pool(self, x):
        return max_pool(x, [same_padding(length) for length in x.shape[2:]])

    def block(self, x, name, stride):
        before = relu(self.bn(x, f"{name}.bn1")) if self.has(f"{name}.bn1") else x
        shortcut = self.shortcut(before, name, stride) if self.has(f"{name}.downsample.0") else x
        out = self.conv(before, f"{name}.conv1")
        out = self.conv(relu(self.bn(out, f"{name}.bn2")), f"{name}.conv2", stride)
        out = self.conv(relu(self.bn(out, f"{name}.bn3")), f"{name}.conv3")
        return out + shortcut


class PaperReference(MindCVReference):
    """ResNet v2 as its authors have it."""

    def pool(self, x):
        return max_pool(x, ((1, 1), (1, 1)))

    def features(self, x, layers):
        return relu(self.bn(super().features(x, layers), "norm"))


def randomise_statistics(network, seed=0):
    """Give BN statistics that tell a mean from a variance and a scale from a shift."""
    rng = np.random.default_rng(seed)
    for module in network.modules():
        if isinstance(module, M.BatchNorm2d):
            shape = module.running_mean.shape
            module.running_mean._reset(rng.normal(0, 0.1, shape).astype(np.float32))
            module.running_var._reset(rng.uniform(0.5, 1.5, shape).astype(np.float32))
            module.weight._reset(rng.uniform(0.5, 1.0, module.weight.shape).astype(np.float32))
            module.bias._reset(rng.normal(0, 0.1, module.bias.shape).astype(np.float32))
    return network


def relative_difference(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()
