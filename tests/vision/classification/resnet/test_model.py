import megengine as mge
import megengine.functional as F
import megengine.module as M
import numpy as np
import pytest

from official.vision.classification.resnet import model as resnet
from official.vision.classification.resnet.complexity import complexity

# Parameters, multiply-adds of convolutions and the classifier at 224 px (in units of 1e9), and
# the same with BN, ReLU and pooling as MMPreTrain's tables count them (None: not in a table).
FACTS = {
    "resnet18": (11_689_512, 1.814, 1.822),
    "resnet34": (21_797_672, 3.664, 3.676),
    "resnet50": (25_557_032, 4.089, 4.122),
    "resnet101": (44_549_160, 7.801, 7.849),
    "resnet152": (60_192_808, 11.514, 11.581),
    "resnext50_32x4d": (25_028_904, 4.230, None),
    "resnext101_32x8d": (88_791_336, 16.414, None),
    "wide_resnet50_2": (68_883_240, 11.398, 11.441),
    "wide_resnet101_2": (126_886_696, 22.753, 22.816),
}


@pytest.mark.parametrize("name", FACTS)
def test_complexity_is_the_published_one(name):
    params, macs, flops = FACTS[name]
    network = getattr(resnet, name)()
    cost = complexity(network, 224)
    assert cost.params == params
    assert sum(int(np.prod(p.shape)) for p in network.parameters()) == params
    assert round(cost.macs / 1e9, 3) == macs
    if flops is not None:
        assert round((cost.macs + cost.elementwise) / 1e9, 3) == flops


def test_complexity_follows_the_input_and_the_head():
    network = resnet.resnet50(num_classes=200)
    cost = complexity(network, 448)
    assert cost.params == 23_917_832  # MMPreTrain's resnet50_8xb8_cub
    assert round(cost.macs / 1e9, 3) == 16.349
    assert round((cost.macs + cost.elementwise) / 1e9, 2) == 16.48


def reference_conv(x, weight, stride, padding, dilation=1):
    """A convolution in float64 from its definition; ``weight`` is (O, I, k, k) or grouped 5-D."""
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


class Reference:
    """The paper's network in float64 numpy, from a state dict."""

    def __init__(self, state):
        self.state = {name: value.astype(np.float64) for name, value in state.items()}

    def conv_bn(self, x, conv, bn, stride=1):
        weight = self.state[conv + ".weight"]
        x = reference_conv(x, weight, stride, weight.shape[-1] // 2)
        gamma, beta, mean, var = (
            self.state[f"{bn}.{part}"].reshape(1, -1, 1, 1)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(var + 1e-5) * gamma + beta

    def block(self, x, name, stride):
        shortcut = x
        if f"{name}.downsample.0.weight" in self.state:
            shortcut = self.conv_bn(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
        if f"{name}.conv3.weight" in self.state:
            x = np.maximum(self.conv_bn(x, f"{name}.conv1", f"{name}.bn1"), 0)
            x = np.maximum(self.conv_bn(x, f"{name}.conv2", f"{name}.bn2", stride), 0)
            x = self.conv_bn(x, f"{name}.conv3", f"{name}.bn3")
        else:
            x = np.maximum(self.conv_bn(x, f"{name}.conv1", f"{name}.bn1", stride), 0)
            x = self.conv_bn(x, f"{name}.conv2", f"{name}.bn2")
        return np.maximum(x + shortcut, 0)

    def __call__(self, x, layers):
        x = np.maximum(self.conv_bn(x.astype(np.float64), "conv1", "bn1", 2), 0)
        x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        height, width = (x.shape[2] - 3) // 2 + 1, (x.shape[3] - 3) // 2 + 1
        x = np.max(
            [
                x[:, :, i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2]
                for i in range(3)
                for j in range(3)
            ],
            axis=0,
        )
        for stage, blocks in enumerate(layers, 1):
            for index in range(blocks):
                x = self.block(x, f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1)
        return x.mean((2, 3)) @ self.state["fc.weight"].T + self.state["fc.bias"]


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


@pytest.mark.parametrize(
    ("block", "options"),
    [
        (resnet.BasicBlock, {}),
        (resnet.Bottleneck, {}),
        (resnet.Bottleneck, {"groups": 32, "width_per_group": 4}),
        (resnet.Bottleneck, {"width_per_group": 128}),
    ],
    ids=["basic", "bottleneck", "resnext", "wide"],
)
def test_forward_equals_the_definition_in_float64(block, options):
    layers = (1, 2, 1, 1)
    network = randomise_statistics(resnet.ResNet(block, layers, num_classes=7, **options))
    network.eval()
    x = np.random.default_rng(1).normal(size=(2, 3, 47, 64)).astype(np.float32)  # odd and oblong
    expected = Reference(network.state_dict())(x, layers)
    found = network(mge.Tensor(x)).numpy()
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("block", [resnet.BasicBlock, resnet.Bottleneck])
@pytest.mark.parametrize("dilate", [(False, False, True), (False, True, True)])
def test_dilation_computes_the_strided_features_on_a_finer_grid(block, dilate):
    """The à trous property: every second (fourth) pixel is what the strided network gives."""
    strided = randomise_statistics(resnet.ResNet(block, (1, 1, 2, 2)))
    dilated = resnet.ResNet(block, (1, 1, 2, 2), replace_stride_with_dilation=dilate)
    dilated.load_state_dict(strided.state_dict())
    strided.eval(), dilated.eval()
    x = mge.Tensor(np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32))
    coarse = strided.extract_features(x)["res5"].numpy()
    fine = dilated.extract_features(x)["res5"].numpy()
    step = 2 ** sum(dilate)
    assert fine.shape[2] == step * coarse.shape[2]
    assert np.allclose(fine[:, :, ::step, ::step], coarse, rtol=1e-4, atol=1e-5)


def test_features_by_name():
    network = resnet.ResNet(resnet.BasicBlock, (1, 1, 1, 1))
    x = mge.Tensor(np.zeros((2, 3, 64, 96), np.float32))
    shapes = {name: value.shape for name, value in network.extract_features(x).items()}
    assert shapes == {
        "stem": (2, 64, 16, 24),
        "res2": (2, 64, 16, 24),
        "res3": (2, 128, 8, 12),
        "res4": (2, 256, 4, 6),
        "res5": (2, 512, 2, 3),
    }
    (pooled,) = network.extract_feat(x)
    assert pooled.shape == (2, 512)
    assert np.allclose(network.fc(pooled).numpy(), network(x).numpy())


def test_zero_init_makes_every_block_the_identity_at_first():
    network = resnet.ResNet(resnet.Bottleneck, (2, 1, 1, 1), zero_init_residual=True)
    network.eval()
    x = mge.Tensor(np.random.default_rng(0).normal(size=(1, 256, 5, 5)).astype(np.float32))
    second = network.layer1[1]
    assert np.array_equal(second(x).numpy(), F.relu(x).numpy())
    first = resnet.ResNet(resnet.Bottleneck, (2, 1, 1, 1)).layer1[1]
    first.eval()
    assert not np.array_equal(first(x).numpy(), F.relu(x).numpy())


def test_initial_weights_have_the_variance_of_he_et_al():
    """Var = 2 / (outputs each input reaches), arXiv:1502.01852, eq. 14."""
    network = resnet.resnet18()
    weight = network.layer3[0].conv1.weight.numpy()  # 3x3, from 128 channels to 256
    assert abs(weight.std() / np.sqrt(2 / (9 * 256)) - 1) < 0.01
    assert abs(weight.mean()) < 1e-3
    head = network.fc.weight.numpy()
    assert np.abs(head).max() <= 1 / np.sqrt(512)
    assert np.abs(head).max() > 0.99 / np.sqrt(512)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_is_what_the_detectors_of_megengine_models_expect(name):
    """Their FPN, key point and segmentation models build and use a backbone in just this way."""
    norms = []

    def norm(channels):
        norms.append(channels)
        return M.BatchNorm2d(channels)

    backbone = getattr(resnet, name)(
        norm=norm, pretrained=False, replace_stride_with_dilation=[False, False, True]
    )
    del backbone.fc
    assert norms[0] == 64
    assert len(norms) == (20 if name == "resnet18" else 53)
    features = backbone.extract_features(mge.Tensor(np.zeros((1, 3, 64, 64), np.float32)))
    assert features["res5"].shape[2:] == features["res4"].shape[2:] == (4, 4)


def test_state_dict_has_the_names_and_shapes_of_megengine_models():
    state = resnet.resnext50_32x4d().state_dict()
    assert len(state) == 53 * 5 + 2  # convolutions with four BN tensors each, and the classifier
    assert state["conv1.weight"].shape == (64, 3, 7, 7)
    assert state["bn1.running_var"].shape == (64,)
    assert state["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert state["layer1.0.downsample.1.bias"].shape == (256,)
    assert state["layer4.2.conv2.weight"].shape == (32, 32, 32, 3, 3)
    assert state["layer4.2.bn3.weight"].shape == (2048,)
    assert state["fc.weight"].shape == (1000, 2048)


def test_other_image_channels_and_classes():
    network = resnet.resnet18(num_classes=3, in_channels=1)
    network.eval()
    assert network(mge.Tensor(np.zeros((2, 1, 40, 40), np.float32))).shape == (2, 3)


def test_bad_arguments():
    with pytest.raises(ValueError, match="three elements"):
        resnet.resnet50(replace_stride_with_dilation=[True])
    with pytest.raises(ValueError, match="Bottleneck"):
        resnet.ResNet(resnet.BasicBlock, (1, 1, 1, 1), groups=2)
