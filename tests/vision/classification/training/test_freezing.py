import megengine as mge
import megengine.functional as F
import numpy as np
import pytest
from megengine.autodiff import GradManager
from megengine.optimizer import SGD

from official.vision.classification.errors import UsageError
from official.vision.classification.resnet.cifar import CifarResNet
from official.vision.classification.resnet.model import BasicBlock, ResNet
from official.vision.classification.resnet.preact import PreActResNet
from official.vision.classification.training.optimizers import (
    freeze_stages,
    stages,
    trainable_parameters,
)

# What a stage's tensors are called, for as many stages as are frozen.
STEM, LAYER1 = ("conv1.", "bn1."), ("layer1.",)


def train_two_steps(model, freeze):
    """As a trainer does: everything to training mode, then the frozen stages back."""
    parameters = trainable_parameters(model, freeze)
    gradients = GradManager().attach(parameters)
    optimizer = SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)
    rng = np.random.default_rng(0)
    for _ in range(2):
        model.train()
        freeze_stages(model, freeze)
        with gradients:
            logits = model(mge.Tensor(rng.normal(size=(4, 3, 16, 16)).astype(np.float32)))
            gradients.backward(F.nn.cross_entropy(logits, mge.Tensor(np.arange(4, dtype="int32"))))
        optimizer.step()
        grads = {name for name, value in model.named_parameters() if value.grad is not None}
        optimizer.clear_grad()
    return grads


@pytest.mark.parametrize(
    ("freeze", "frozen"), [(0, ()), (1, STEM), (2, STEM + LAYER1), (4, (*STEM, "layer"))]
)
def test_frozen_stages_stay_bit_for_bit_and_all_others_move(freeze, frozen):
    mge.random.seed(0)
    model = CifarResNet(1, num_classes=5, drop_path=0.5)
    before = model.state_dict()
    grads = train_two_steps(model, freeze)
    after = model.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        fixed = name.startswith(frozen) if frozen else False
        assert np.array_equal(after[name], value) == fixed, name
        if "running" not in name:
            assert (name in grads) == (not fixed)
    assert model.fc.training
    for module in [module for stage in stages(model)[:freeze] for module in stage]:
        assert not any(inner.training for inner in module.modules())  # drop path too


def test_five_stages_leave_the_classifier():
    model = ResNet(BasicBlock, (1, 1, 1, 1), num_classes=2)
    layers = [[getattr(model, f"layer{number}")] for number in (1, 2, 3, 4)]
    assert stages(model) == [[model.conv1, model.bn1], *layers]
    left = [name for name, value in model.named_parameters() if name.startswith("fc.")]
    assert len(trainable_parameters(model, 5)) == len(left) == 2


def test_the_papers_last_norm_belongs_to_the_last_stage():
    model = PreActResNet((1, 1, 1, 1), num_classes=2, paper_form=True)
    assert stages(model)[-1] == [model.layer4, model.norm]
    assert len(trainable_parameters(model, 5)) == 2
    norm = {id(parameter) for parameter in model.norm.parameters()}
    assert norm <= {id(parameter) for parameter in trainable_parameters(model, 4)}


def test_the_order_is_the_models():
    model = CifarResNet(1)
    expected = [id(parameter) for parameter in model.parameters()]
    assert [id(parameter) for parameter in trainable_parameters(model)] == expected


@pytest.mark.parametrize("count", [-1, 5])
def test_more_stages_than_there_are(count):
    model = CifarResNet(1)
    expected = f"freeze: {count}, but this network has 4 stages, .* layer1 to layer3; .* 0 to 4"
    for use in (freeze_stages, trainable_parameters):
        with pytest.raises(UsageError, match=expected):
            use(model, count)
    assert model.training
