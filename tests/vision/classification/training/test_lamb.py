"""LAMB and AdamW next to their formulas, computed in float64 from one gradient after another; by
MegEngine's operations and by the kernel for CPUs."""

import numpy as np
import pytest
from megengine import Parameter, Tensor

from official.vision.classification.ops.native import NativeOps
from official.vision.classification.ops.plain import PlainOps, l2_norm
from official.vision.classification.training.optimizers import LAMB, AdamW, clip_grad_norm
from tests.kernels import kernels_or_skip

# The last has more elements than the kernel takes at once, and an odd number of them.
SHAPES = {"weight": (8, 4, 3, 3), "bias": (8,), "empty": (4, 5), "single": (1,), "large": (9, 1001)}
BETAS = (0.9, 0.99)
EPS = 1e-6


@pytest.fixture(params=["plain", "native"])
def ops(request):
    return PlainOps() if request.param == "plain" else NativeOps(kernels_or_skip())


def starting_values():
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    values["empty"] = np.zeros(SHAPES["empty"])
    return {name: value.astype(np.float32) for name, value in values.items()}


def gradients(steps, scale=0.1):
    rng = np.random.default_rng(1)
    drawn = [{name: rng.normal(size=SHAPES[name]) * scale for name in SHAPES} for _ in range(steps)]
    return [{name: value.astype(np.float32) for name, value in step.items()} for step in drawn]


def move(optimizer, parameters, steps, rates, max_norm=None):
    for grads, rate in zip(steps, rates):
        for name, value in grads.items():
            parameters[name].grad = Tensor(value)
        if max_norm:
            clip_grad_norm(parameters.values(), max_norm)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step().clear_grad()
    return {name: parameter.numpy() for name, parameter in parameters.items()}


def expected(decays, steps, rates, trust, max_norm=np.inf):
    """Algorithm 2 of either paper, every tensor for itself but for the limit of the norm."""
    weights = {name: value.astype(np.float64) for name, value in starting_values().items()}
    m = {name: 0.0 for name in weights}
    v = {name: 0.0 for name in weights}
    for t, (grads, rate) in enumerate(zip(steps, rates), start=1):
        grads = {name: value.astype(np.float64) for name, value in grads.items()}
        norm = np.sqrt(sum((value**2).sum() for value in grads.values()))
        for name, w in weights.items():
            g = grads[name] * min(1.0, max_norm / norm)
            m[name] = BETAS[0] * m[name] + (1 - BETAS[0]) * g
            v[name] = BETAS[1] * v[name] + (1 - BETAS[1]) * g**2
            m_hat, v_hat = m[name] / (1 - BETAS[0] ** t), v[name] / (1 - BETAS[1] ** t)
            u = m_hat / (np.sqrt(v_hat) + EPS) + decays[name] * w
            ratio = 1.0
            if trust and decays[name] > 0 and np.linalg.norm(w) > 0 and np.linalg.norm(u) > 0:
                ratio = np.linalg.norm(w) / np.linalg.norm(u)
            weights[name] = w - rate * ratio * u
    return weights


def build(kind, decays, ops):
    parameters = {name: Parameter(value) for name, value in starting_values().items()}
    groups = [
        {"params": [parameter], "weight_decay": decays[name]}
        for name, parameter in parameters.items()
    ]
    return kind(groups, lr=1.0, betas=BETAS, eps=EPS, ops=ops), parameters


DECAYS = {"weight": 0.3, "bias": 0.0, "empty": 0.3, "single": 0.05, "large": 0.1}
RATES = [0.01, 0.02, 0.05, 0.03, 0.001, 0.1]


@pytest.mark.parametrize(("kind", "trust"), [(LAMB, True), (AdamW, False)])
def test_steps_follow_the_formula(kind, trust, ops):
    optimizer, parameters = build(kind, DECAYS, ops)
    found = move(optimizer, parameters, gradients(6), RATES)
    wanted = expected(DECAYS, gradients(6), RATES, trust)
    for name, start in starting_values().items():
        way = np.abs(wanted[name] - start).max()
        assert way > 0.01  # far enough for the tolerance to mean something
        np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=1e-5 * way)


def test_lamb_with_clipping_is_the_published_optimizer(ops):
    """NvLamb divides all gradients by their common norm where it is above 1, then goes on."""
    steps = [step for pair in zip(gradients(3, 5.0), gradients(3, 1e-3)) for step in pair]
    optimizer, parameters = build(LAMB, DECAYS, ops)
    found = move(optimizer, parameters, steps, RATES, max_norm=1.0)
    wanted = expected(DECAYS, steps, RATES, trust=True, max_norm=1.0)
    unclipped = expected(DECAYS, steps, RATES, trust=True)
    for name in SHAPES:
        np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=2e-6)
        if name != "single":  # of a single number LAMB takes the sign, clipped or not
            assert np.abs(found[name] - unclipped[name]).max() > 1e-4


def test_a_tensor_without_decay_moves_by_the_rate_alone_and_one_with_decay_by_its_length(ops):
    """The first u is the gradient's sign, and the trust ratio gives it the length of w."""
    optimizer, parameters = build(LAMB, {**DECAYS, "weight": 1e-9}, ops)
    before = starting_values()
    after = move(optimizer, parameters, gradients(1), [0.01])
    steps = {name: after[name] - before[name] for name in SHAPES}
    assert np.abs(steps["bias"]) == pytest.approx(np.full(8, 0.01), rel=1e-3)
    length = np.linalg.norm(before["weight"]) * 0.01
    assert np.linalg.norm(steps["weight"]) == pytest.approx(length, rel=1e-3)


@pytest.mark.parametrize("kind", [LAMB, AdamW])
def test_no_gradient_no_update(kind, ops):
    optimizer, parameters = build(kind, DECAYS, ops)
    parameters["weight"].grad = Tensor(gradients(1)[0]["weight"])
    optimizer.step()
    for name, value in starting_values().items():
        assert np.array_equal(parameters[name].numpy(), value) == (name != "weight")
    assert optimizer._state[parameters["bias"]]["step"].numpy() == [0]


def test_a_gradient_of_zeros_leaves_a_weight_of_zeros_finite(ops):
    optimizer, parameters = build(LAMB, DECAYS, ops)
    parameters["empty"].grad = Tensor(np.zeros(SHAPES["empty"], np.float32))
    optimizer.step()
    assert np.array_equal(parameters["empty"].numpy(), np.zeros(SHAPES["empty"]))


def test_the_norm_of_a_large_tensor_is_right():
    x = np.random.default_rng(0).normal(3, 1, 2_400_000).astype(np.float32)
    norm = l2_norm(Tensor(x.reshape(2, -1, 3)))
    assert norm.shape == ()
    assert norm.item() == pytest.approx(np.linalg.norm(x.astype(np.float64)), rel=1e-6)
