"""How other projects call a network's tensors.

Our own names are torchvision's and timm's, which are MegEngine/Models' too: ``conv1``, ``bn1``,
``layer1.0.conv1``, ``layer1.0.downsample.0``, ``fc``, and ``weight, bias, running_mean,
running_var`` of a batch normalisation. Deep stems and the shortcuts of ResNet-D are timm's.
"""

from dataclasses import dataclass
from typing import Dict, Tuple

Rules = Tuple[Tuple[str, str], ...]


@dataclass(frozen=True)
class Scheme:
    """How a project calls a network's tensors.

    Args:
        mark: a name that matches this tells the scheme.
        rules: regular expressions and what replaces their first match.
        dropped: names that match this are not of the network.
        anchor: the whole name of a tensor that every network of this scheme has. What stands
            before it in a file is what is wrapped around the network.
        stride_first: such networks have their stride on the first 1x1 convolution: v1a.
        kernels_last: axes are (height, width, in, out) and (in, out), as in TensorFlow and flax.
        epsilon: of its normalisations.
        refused: why no network here computes what such a network does.
    """

    mark: str
    rules: Rules
    dropped: str
    anchor: str = ""
    stride_first: bool = False
    kernels_last: bool = False
    epsilon: float = 1e-5
    refused: str = ""


# torch counts the batches that a normalisation has seen; here its momentum needs no count. Its
# AveragedModel counts the networks that it has averaged.
_TORCH_DROPPED = r"(^|\.)num_batches_tracked$|^n_averaged$"

_HUGGING_FACE: Rules = (
    (r"^resnet\.", ""),
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    *((rf"^encoder\.stages\.{n}\.layers\.", f"layer{n + 1}.") for n in range(4)),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    *((rf"\.layer\.{n}\.convolution\.", f".conv{n + 1}.") for n in range(3)),
    *((rf"\.layer\.{n}\.normalization\.", f".bn{n + 1}.") for n in range(3)),
    (r"^classifier\.1\.", "fc."),
)

# The first whose mark is found is the file's.
SCHEMES: Dict[str, Scheme] = {
    "mmpretrain": Scheme(
        r"^backbone\.",
        (
            (r"^backbone\.stem\.0\.conv\.", "conv1.0."),
            (r"^backbone\.stem\.0\.bn\.", "conv1.1."),
            (r"^backbone\.stem\.1\.conv\.", "conv1.3."),
            (r"^backbone\.stem\.1\.bn\.", "conv1.4."),
            (r"^backbone\.stem\.2\.conv\.", "conv1.6."),
            (r"^backbone\.stem\.2\.bn\.", "bn1."),
            (r"^backbone\.", ""),
            (r"^head\.fc\.", "fc."),
        ),
        _TORCH_DROPPED,
    ),
    "mindcv": Scheme(
        r"(^|\.)(bn\d|down_sample\.1)\.moving_mean$",
        (
            (r"\.down_sample\.", ".downsample."),
            (r"\.gamma$", ".weight"),
            (r"\.beta$", ".bias"),
            (r"\.moving_mean$", ".running_mean"),
            (r"\.moving_variance$", ".running_var"),
            (r"^classifier\.", "fc."),
        ),
        # The optimizer's state and counters of a MindSpore training checkpoint.
        r"^(moments|accum|stat)\.|^(epoch_num|step_num|global_step|learning_rate|momentum"
        r"|scale_sense|loss_scale|current_iterator_step|last_overflow_iterator_step)$",
    ),
    # timm's models/resnetv2.py. Its other networks have torchvision's names.
    "timm_v2": Scheme(
        r"^stages\.0\.blocks\.0\.norm1\.",
        (
            (r"^stem\.conv\.", "conv1."),
            (r"^stem\.conv1\.", "conv1.0."),
            (r"^stem\.norm1\.", "conv1.1."),
            (r"^stem\.conv2\.", "conv1.3."),
            (r"^stem\.norm2\.", "conv1.4."),
            (r"^stem\.conv3\.", "conv1.6."),
            *((rf"^stages\.{stage}\.blocks\.", f"layer{stage + 1}.") for stage in range(4)),
            (r"\.norm([123])\.", r".bn\1."),
            (r"\.downsample\.conv\.", ".downsample.0."),
            (r"^head\.fc\.", "fc."),
        ),
        _TORCH_DROPPED,
        r"stages\.0\.blocks\.0\.conv1\.weight",
    ),
    # transformers' models/resnet/modeling_resnet.py
    "huggingface": Scheme(
        r"^(resnet\.)?encoder\.stages\.0\.layers\.0\.layer\.0\.convolution\.weight$",
        _HUGGING_FACE,
        _TORCH_DROPPED,
        r"(?:resnet\.)?encoder\.stages\.0\.layers\.0\.layer\.0\.convolution\.weight",
    ),
    # transformers' models/resnet/modeling_flax_resnet.py, which has the same modules. A basic
    # block's convolutions are a list there: "layer_0".
    "flax": Scheme(
        r"(^|\.)encoder\.stages\.0\.layers\.0\.layer\.(layer_)?0\.convolution\.kernel$",
        (
            (r"\.(kernel|scale)$", ".weight"),
            (r"\.mean$", ".running_mean"),
            (r"\.var$", ".running_var"),
            (r"\.layer_(\d)\.", r".\1."),
            *_HUGGING_FACE,
        ),
        _TORCH_DROPPED,
        r"(?:resnet\.)?encoder\.stages\.0\.layers\.0\.layer\.(?:layer_)?0\.convolution\.kernel",
        kernels_last=True,
    ),
    "keras_v2": Scheme(
        r"^conv2_block1_preact_bn\.",
        (),
        r"$^",
        refused="is of Keras's ResNet v2, whose stages halve the map in their last unit, and no "
        "network here computes that; of Keras ResNet50, ResNet101 and ResNet152 are read",
    ),
    # keras.applications' ResNet of version 1, as keras/src/applications/resnet.py names its layers.
    # A file has the layer's name once or twice, and 0, 1, 2, … in place of its variables' names.
    "keras": Scheme(
        r"^conv2_block1_1_conv\.",
        (
            (r":0$", ""),
            (r"^([^.]+)\.\1\.", r"\1."),
            (r"_bn\.(gamma|0)$", "_bn.weight"),
            (r"_bn\.(beta|1)$", "_bn.bias"),
            (r"_bn\.(moving_mean|2)$", "_bn.running_mean"),
            (r"_bn\.(moving_variance|3)$", "_bn.running_var"),
            (r"\.(kernel|0)$", ".weight"),
            (r"\.1$", ".bias"),
            (r"^conv1_conv\.", "conv1."),
            (r"^conv1_bn\.", "bn1."),
            *(
                (rf"^conv{n + 1}_block{m}_", f"layer{n}.{m - 1}.")
                for n in range(1, 5)
                for m in range(1, 37)
            ),
            (r"\.0_conv\.", ".downsample.0."),
            (r"\.0_bn\.", ".downsample.1."),
            (r"\.(\d)_(conv|bn)\.", r".\2\1."),
            (r"^(predictions|probs|fc1000)\.", "fc."),
        ),
        r"^top_level_model_weights\.",
        r"conv2_block1_1_conv\.(?:conv2_block1_1_conv\.)?(?:kernel(?::0)?|0)",
        stride_first=True,
        kernels_last=True,
        epsilon=1.001e-5,
    ),
    # detectron2's modeling/backbone/resnet.py
    "detectron2": Scheme(
        r"^res2\.0\.conv1\.weight$",
        (
            (r"^stem\.conv1\.norm\.", "bn1."),
            (r"^stem\.", ""),
            *((rf"^res{n + 1}\.", f"layer{n}.") for n in range(1, 5)),
            *((rf"\.conv{n}\.norm\.", f".bn{n}.") for n in range(1, 4)),
            (r"\.shortcut\.norm\.", ".downsample.1."),
            (r"\.shortcut\.", ".downsample.0."),
            (r"^linear\.", "fc."),
        ),
        _TORCH_DROPPED,
        r"res2\.0\.conv1\.weight",
    ),
    # Caffe2, as in Detectron's files of MSRA's networks: normalisations are scale and bias only.
    "caffe2": Scheme(
        r"^res2_0_branch2a_w$",
        (
            # Some have statistics, too: detectron2's checkpoint/c2_model_loading.py has all names.
            (r"_bn_(gamma|s)$", "_bn_.weight"),
            (r"_bn_(beta|b)$", "_bn_.bias"),
            (r"_bn_(rm|running_mean)$", "_bn_.running_mean"),
            (r"_bn_(riv|running_var)$", "_bn_.running_var"),
            (r"^(res_)?conv1_bn_\.", "bn1."),
            (r"^conv1_w$", "conv1.weight"),
            *((rf"^res{n + 1}_(\d+)_", rf"layer{n}.\1.") for n in range(1, 5)),
            *((rf"\.branch2{c}_bn_\.", f".bn{n}.") for n, c in ((1, "a"), (2, "b"), (3, "c"))),
            *((rf"\.branch2{c}_", f".conv{n}.") for n, c in ((1, "a"), (2, "b"), (3, "c"))),
            (r"\.branch1_bn_\.", ".downsample.1."),
            (r"\.branch1_", ".downsample.0."),
            (r"^(fc1000|pred)_", "fc."),
            (r"\.w$", ".weight"),
            (r"\.b$", ".bias"),
        ),
        r"_momentum$|^lr$|^conv1_b$",
        r"res2_0_branch2a_w",
        stride_first=True,
    ),
    # pycls' models/resnet.py, and models/anynet.py of the same form
    "pycls": Scheme(
        r"^s1\.b1\.f\.a\.weight$",
        (
            (r"^stem\.conv\.", "conv1."),
            (r"^stem\.bn\.", "bn1."),
            *((rf"^s{n}\.b{m}\.", f"layer{n}.{m - 1}.") for n in range(1, 5) for m in range(1, 65)),
            *((rf"\.f\.{c}_bn\.", f".bn{n}.") for n, c in ((1, "a"), (2, "b"), (3, "c"))),
            *((rf"\.f\.{c}\.", f".conv{n}.") for n, c in ((1, "a"), (2, "b"), (3, "c"))),
            (r"\.proj\.", ".downsample.0."),
            (r"^(layer\d\.\d+)\.bn\.", r"\1.downsample.1."),
            (r"^head\.fc\.", "fc."),
        ),
        _TORCH_DROPPED,
        r"s1\.b1\.f\.a\.weight",
    ),
    # torch.nn.Sequential(*resnet.children()), whole or without its last modules
    "sequential": Scheme(
        r"^4\.0\.conv1\.weight$",
        (
            (r"^0\.", "conv1."),
            (r"^1\.", "bn1."),
            *((rf"^{n + 3}\.(\d+)\.", rf"layer{n}.\1.") for n in range(1, 5)),
            (r"^9\.", "fc."),
        ),
        _TORCH_DROPPED,
        r"4\.0\.conv1\.weight",
    ),
    # github.com/akamaster/pytorch_resnet_cifar10
    "cifar": Scheme(r"^linear\.weight$", ((r"^linear\.", "fc."),), _TORCH_DROPPED),
    # Ours, MegEngine/Models', torchvision's and timm's
    "torchvision": Scheme("", (), _TORCH_DROPPED, r"(?:backbone\.)?layer1\.0\.conv1\.weight"),
}

# MMPreTrain's ResNet-D numbers the modules of a shortcut, and its average pool is there only where
# the stride is 2. timm puts an identity in its place.
RESNET_D_MARK = "backbone.layer2.0.downsample.2.weight"
RESNET_D_RULES = (
    (r"^layer1\.0\.downsample\.1\.", "layer1.0.downsample.2."),
    (r"^layer1\.0\.downsample\.0\.", "layer1.0.downsample.1."),
)
# In timm's form D of ResNet v2, told by its deep stem, a 2x2 mean or identity precedes a shortcut's
# convolution; it has no name there.
TIMM_V2_D_MARK = "stem.conv2.weight"
TIMM_V2_D_RULES = ((r"\.downsample\.0\.", ".downsample.1."),)
