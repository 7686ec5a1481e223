from typing import get_args

import megengine as mge
import megengine.module as M
import megengine.optimizer as optim
import numpy as np
import pytest
from megengine import Parameter, Tensor
from megengine.autodiff import GradManager

from official.vision.classification.engine.schema import Optimizer
from official.vision.classification.errors import UsageError
from official.vision.classification.preprocess import Preprocess
from official.vision.classification.resnet.cifar import CifarResNet
from official.vision.classification.resnet.preact import PreActResNet
from official.vision.classification.training.checkpoint import (
    Progress,
    collect_tensors,
    read_checkpoint,
    restore,
    save_checkpoint,
)
from official.vision.classification.training.optimizers import (
    OPTIMIZERS,
    build_optimizer,
    clip_grad_norm,
    set_learning_rate,
)

SGD = Optimizer(lr=0.1, momentum=0.9, weight_decay=1e-2)
LAMB = Optimizer(type="lamb", lr=0.01, weight_decay=0.02, eps=1e-6)
ADAMW = Optimizer(type="adamw", lr=0.01, weight_decay=0.05, betas=(0.8, 0.9), eps=1e-3)
EVERY = pytest.mark.parametrize("section", [SGD, LAMB, ADAMW], ids=lambda section: section.type)


def network(seed=0):
    mge.random.seed(seed)
    return CifarResNet(1, num_classes=3)


def train(model, optimizer, first, last):
    manager = GradManager().attach(model.parameters())
    for step in range(first, last):
        x = np.random.default_rng(step).normal(size=(4, 3, 8, 8)).astype(np.float32)
        with manager:
            manager.backward((model(Tensor(x)) ** 2).mean())
        optimizer.step().clear_grad()


def with_rate(model, section, lr, **about):
    """An optimizer as ``build_optimizer`` makes it, with a learning rate."""
    optimizer = build_optimizer(model, section, **about)
    set_learning_rate(optimizer, lr)
    return optimizer


def equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert all(np.isfinite(value).all() for value in a.values())
    return all(np.array_equal(a[name], b[name]) for name in a)


def names_by_group(model, optimizer):
    """``{(weight decay, scale of the rate): names}``, each parameter found exactly once."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [names.pop(id(each)) for group in optimizer.param_groups for each in group["params"]]
    assert len(found) == len(set(found))
    start = 0
    groups = {}
    for group in optimizer.param_groups:
        end = start + len(group["params"])
        groups[group["weight_decay"], group["lr_scale"]] = set(found[start:end])
        start = end
    return groups


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_megengines_bit_for_bit(nesterov):
    ours, theirs = network(), network()
    section = SGD.model_copy(update={"nesterov": nesterov})
    train(ours, with_rate(ours, section, lr=0.05), 0, 3)
    values = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-2, "nesterov": nesterov}
    train(theirs, optim.SGD(theirs.parameters(), **values), 0, 3)
    assert equal(ours, theirs)
    assert not equal(ours, network())


@EVERY
def test_the_section_reaches_the_optimizer(section):
    model = network()
    optimizer = with_rate(model, section, lr=0.25)
    (group,) = optimizer.param_groups
    assert type(optimizer).__name__.lower() == section.type
    assert (group["lr"], group["lr_scale"], group["weight_decay"]) == (
        0.25,
        1.0,
        section.weight_decay,
    )
    if section.type == "sgd":
        assert group["momentum"] == 0.9
    else:
        assert (group["betas"], group["eps"]) == (section.betas, section.eps)
    order = [id(parameter) for parameter in model.parameters()]
    assert [id(parameter) for parameter in group["params"]] == order


@pytest.mark.parametrize(("norm", "bias"), [(False, False), (False, True), (True, False)])
def test_what_is_left_out_of_weight_decay(norm, bias):
    model = network()
    section = LAMB.model_copy(update={"decay_norm": norm, "decay_bias": bias})
    groups = names_by_group(model, with_rate(model, section, lr=1.0))
    everything = {name for name, _ in model.named_parameters()}
    left_out = {
        name
        for name in everything
        if (name.endswith(".bias") and not bias) or (".bn" in f".{name}" and not norm)
    }
    assert groups == {(0.02, 1.0): everything - left_out, (0.0, 1.0): left_out}
    assert "fc.weight" not in left_out
    assert ("fc.bias" in left_out) == (not bias)
    assert ("layer1.0.bn1.weight" in left_out) == (not norm)


@pytest.mark.parametrize("norm", [M.SyncBatchNorm, lambda channels: M.GroupNorm(4, channels)])
def test_every_kind_of_norm_is_known(norm):
    model = CifarResNet(1, norm=norm)
    section = SGD.model_copy(update={"decay_norm": False})
    groups = names_by_group(model, with_rate(model, section, lr=1.0))
    assert "bn1.weight" in groups[0.0, 1.0]
    assert groups[1e-2, 1.0] == {
        name for name, _ in model.named_parameters() if ".bn" not in f".{name}"
    }


def test_a_projections_norm_is_one_though_its_name_does_not_say_so():
    model = PreActResNet((1, 1, 1, 1), num_classes=2)
    section = SGD.model_copy(update={"decay_norm": False})
    groups = names_by_group(model, with_rate(model, section, lr=1.0))
    by_name = dict(model.named_parameters())
    assert {name for name in groups[1e-2, 1.0] if by_name[name].ndim == 4 and "fc" not in name} == {
        name for name in by_name if by_name[name].ndim == 4 and by_name[name].shape[0] > 1
    }
    assert any("downsample" in name for name in groups[0.0, 1.0])


def test_the_classifier_has_a_rate_of_its_own_and_frozen_stages_none():
    model = network()
    section = SGD.model_copy(update={"decay_bias": False})
    optimizer = with_rate(model, section, lr=0.2, freeze=3, head_lr=10.0)
    groups = names_by_group(model, optimizer)
    layer3 = {name for name, _ in model.named_parameters() if name.startswith("layer3.")}
    biases = {name for name in layer3 if name.endswith("bias")}
    assert groups == {
        (1e-2, 1.0): layer3 - biases,
        (0.0, 1.0): biases,
        (1e-2, 10.0): {"fc.weight"},
        (0.0, 10.0): {"fc.bias"},
    }
    assert {group["lr"] for group in optimizer.param_groups} == {0.2, 2.0}


def test_the_classifiers_rate_is_what_it_moves_by():
    section = Optimizer(lr=1.0, momentum=0.0)
    start, slow, fast = network(), network(), network()
    train(slow, with_rate(slow, section, lr=1e-3), 0, 1)
    train(fast, with_rate(fast, section, lr=1e-3, head_lr=4.0), 0, 1)
    start, slow, fast = (model.state_dict() for model in (start, slow, fast))
    for name in ("fc.weight", "fc.bias"):
        ratio = np.linalg.norm(fast[name] - start[name]) / np.linalg.norm(slow[name] - start[name])
        assert ratio == pytest.approx(4, rel=1e-3)
    assert np.array_equal(fast["conv1.weight"], slow["conv1.weight"])


def test_too_many_frozen_stages():
    with pytest.raises(UsageError, match="freeze: 5, but this network has 4 stages"):
        build_optimizer(network(), SGD, freeze=5)


@EVERY
def test_a_checkpoint_holds_all_that_the_next_step_needs(section, tmp_path):
    section = section.model_copy(update={"decay_bias": False})
    straight = network()
    train(straight, with_rate(straight, section, lr=0.01), 0, 5)

    first = network()
    optimizer = with_rate(first, section, lr=0.01)
    train(first, optimizer, 0, 3)
    path = tmp_path / "checkpoint.safetensors"
    progress = Progress("resnet8", ("a", "b", "c"), Preprocess(), {}, 0, 3, 4)
    save_checkpoint(path, collect_tensors(first, optimizer), progress)

    second = network(seed=1)
    optimizer = with_rate(second, section, lr=0.01)
    restore(path, read_checkpoint(path)[1], second, optimizer)
    train(second, optimizer, 3, 5)
    assert equal(second, straight)


def with_gradients(*values):
    parameters = [Parameter(np.zeros_like(value, dtype=np.float32)) for value in values]
    for parameter, value in zip(parameters, values):
        parameter.grad = Tensor(np.asarray(value, np.float32))
    return parameters


def test_gradients_are_scaled_to_the_limit_all_by_one_factor():
    rng = np.random.default_rng(0)
    values = [rng.normal(size=shape) * size for shape, size in (((3, 4), 1), ((5,), 30), ((1,), 2))]
    parameters = with_gradients(*values)
    norm = np.sqrt(sum((value.astype(np.float32) ** 2).sum(dtype=np.float64) for value in values))
    found = clip_grad_norm(iter(parameters), 0.5)
    assert found.shape == ()
    assert found.item() == pytest.approx(norm, rel=1e-6)
    for parameter, value in zip(parameters, values):
        np.testing.assert_allclose(parameter.grad.numpy(), value * 0.5 / norm, rtol=1e-5)


def test_gradients_within_the_limit_stay_bit_for_bit():
    values = [np.float32([0.3, 0.1]), np.float32([[0.7]])]
    parameters = with_gradients(*values)
    assert clip_grad_norm(parameters, 1.0).item() == pytest.approx(np.sqrt(0.59), rel=1e-6)
    for parameter, value in zip(parameters, values):
        assert np.array_equal(parameter.grad.numpy(), value)


def test_what_has_no_gradient_does_not_count():
    parameters = [Parameter([1.0]), *with_gradients(np.float32([3.0, 4.0])), Parameter([1.0])]
    assert clip_grad_norm(parameters, 1.0).item() == 5
    assert parameters[0].grad is None
    assert parameters[1].grad.numpy() == pytest.approx([0.6, 0.8])
    assert clip_grad_norm([Parameter([1.0])], 1.0).item() == 0


@pytest.mark.parametrize("bad", [np.inf, np.nan, 1e30])
def test_a_norm_that_is_not_finite_is_not_hidden(bad):
    """1e30 is finite, but its square is not: gradients of 0 would pass unnoticed."""
    parameters = with_gradients(np.float32([1.0, 2.0]), np.float32([bad]))
    assert not np.isfinite(clip_grad_norm(parameters, 1.0).item())
    assert all(np.isnan(parameter.grad.numpy()).all() for parameter in parameters)


def test_zero_gradients_stay_zero():
    (parameter,) = with_gradients(np.zeros(3, np.float32))
    assert clip_grad_norm([parameter], 1.0).item() == 0
    assert np.array_equal(parameter.grad.numpy(), np.zeros(3))


def test_a_rate_that_nobody_has_set_is_seen_at_once():
    model = network()
    optimizer = build_optimizer(model, SGD)
    for parameter in model.parameters():
        parameter.grad = Tensor(np.ones(parameter.shape, np.float32))
    optimizer.step()
    assert not any(np.isfinite(parameter.numpy()).any() for parameter in model.parameters())


def test_every_optimizer_that_a_recipe_may_name_is_there():
    assert OPTIMIZERS.keys() == set(get_args(Optimizer.model_fields["type"].annotation))
