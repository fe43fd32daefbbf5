"""The activations: values and derivatives against torch's own modules, kinks, and names."""

import math

import pytest
import torch
import torch.nn.functional as F

from vaefast.bench.cases import ACTIVATIONS
from vaefast.functional.activations import named, parse


def sorted_pairs(a):
    return a.unflatten(-1, (-1, 2)).sort(dim=-1, descending=True).values.flatten(-2)


BY_TORCH = {
    "identity": lambda a: a,
    "relu": F.relu,
    "leaky_relu:0.1": lambda a: F.leaky_relu(a, 0.1),
    "elu:0.7": lambda a: F.elu(a, 0.7),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": lambda a: torch.log1p(torch.exp(a)),
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda a: F.gelu(a, approximate="tanh"),
    "maxmin": sorted_pairs,
    "exp_half": lambda a: torch.exp(a / 2),
    "clamp:-0.8:1.1": lambda a: a.clamp(-0.8, 1.1),
    "hardswish": F.hardswish,
    "mish": F.mish,
    "selu": F.selu,
}


def points(dtype=torch.float64):
    return torch.linspace(-9, 9, 38, dtype=dtype).reshape(2, 19)[:, :18].flip(0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_value_and_derivative_are_torch_s(name):
    a = points().requires_grad_()
    (activation,) = parse([name])
    expected = BY_TORCH[name](a)
    torch.testing.assert_close(activation.value(a), expected, rtol=1e-12, atol=1e-15)
    t = torch.randn(2, 18, dtype=torch.float64)
    (derivative,) = torch.autograd.grad(expected, a, t)
    multiplied = activation.multiply(a, activation.value(a), t)
    torch.testing.assert_close(multiplied, derivative, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_float32_slopes_keep_their_digits_where_a_unit_saturates(name):
    a = torch.tensor([-6.0, -2.9, 3.1, 6.0])
    exact = a.double().requires_grad_()
    (slope,) = torch.autograd.grad(BY_TORCH[name](exact).sum(), exact)
    (activation,) = parse([name])
    single = activation.multiply(a, activation.value(a), torch.ones_like(a))
    torch.testing.assert_close(single.double(), slope, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_hand_derivative_is_differentiable(name):
    a = points()[:, :8].clone().requires_grad_()
    (activation,) = parse([name])

    def product(a, t):
        return activation.multiply(a, activation.value(a), t)

    t = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(product, (a, t))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_second_derivative_is_torch_s(name):
    a = points().requires_grad_()
    (activation,) = parse([name])
    (slope,) = torch.autograd.grad(BY_TORCH[name](a).sum(), a, create_graph=True)
    second = torch.zeros_like(a)
    if slope.requires_grad:
        (second,) = torch.autograd.grad(slope.sum(), a, materialize_grads=True)
    found = activation.second
    if found is None:
        assert not second.any()
    else:
        torch.testing.assert_close(found(a, activation.value(a)), second, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_second_derivative_is_finite_far_out(name):
    (activation,) = parse([name])
    a = torch.tensor([-1e30, -1e4, -90.0, -0.0, 0.0, 90.0, 1e4, 1e30])
    if activation.second is not None and name != "exp_half":
        assert activation.second(a, activation.value(a)).isfinite().all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_extreme_values_stay_finite(name):
    if name == "exp_half":  # grows without bound by definition
        return
    a = torch.tensor([-1e4, -90.0, -0.0, 0.0, 90.0, 1e4])
    (activation,) = parse([name])
    h = activation.value(a)
    assert h.isfinite().all()
    assert activation.multiply(a, h, torch.ones_like(a)).isfinite().all()


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "identity"])
def test_nan_stays_nan(name):
    (activation,) = parse([name])
    assert activation.value(torch.tensor([math.nan, 1.0])).isnan().any()


@pytest.mark.parametrize(
    ("name", "slope"),
    [("relu", 0.0), ("leaky_relu:0.1", 0.1), ("elu:0.7", 0.7), ("selu", 1.7580993408473766)],
)
def test_derivative_at_the_kink_is_the_left_one(name, slope):
    (activation,) = parse([name])
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    assert activation.multiply(zero, activation.value(zero), one).item() == pytest.approx(slope)


@pytest.mark.parametrize(
    ("name", "ends", "slopes"),
    [("clamp:-1:2", [-1.0, 2.0], [1.0, 1.0]), ("hardswish", [-3.0, 3.0], [0.0, 1.0])],
)
def test_slopes_at_both_ends_of_a_ramp(name, ends, slopes):
    a = torch.tensor(ends, dtype=torch.float64)
    (activation,) = parse([name])
    assert activation.multiply(a, activation.value(a), torch.ones_like(a)).tolist() == slopes


def test_clamp_may_be_open():
    a = torch.tensor([-2.0, 0.5, 1e30])
    (activation,) = parse(["clamp:0:inf"])
    assert activation.value(a).tolist() == a.clamp(min=0).tolist()


def test_named_gives_two_parameters():
    texts = ("tanh", "elu:0.7", " clamp:-1:2 ")
    assert [named(text) for text in texts] == [
        ("tanh", (0.0, 0.0)),
        ("elu", (0.7, 0.0)),
        ("clamp", (-1.0, 2.0)),
    ]


def test_maxmin_is_a_permutation_of_adjacent_pairs():
    a = torch.tensor([[1.0, 3.0, 5.0, 4.0, 2.0, 2.0]])
    t = torch.arange(6.0)[None]
    (activation,) = parse(["maxmin"])
    assert activation.value(a).tolist() == [[3.0, 1.0, 5.0, 4.0, 2.0, 2.0]]
    assert activation.multiply(a, activation.value(a), t).tolist() == [[1, 0, 2, 3, 4, 5]]


def test_softplus_is_exact_beyond_torch_s_threshold():
    a = torch.tensor([25.0], dtype=torch.float64)
    (activation,) = parse(["softplus"])
    assert activation.value(a).item() == pytest.approx(25.0 + math.log1p(math.exp(-25)), abs=1e-15)


def test_several_names_give_one_activation_per_layer():
    assert len(parse(["tanh", "leaky_relu:0.01", "sigmoid"])) == 3


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("tanhh", "activations must be among clamp, elu, exp_half, .*, got 'tanhh'"),
        ("tanh,", "got ''"),
        ("tanh:2", "activation 'tanh' takes no parameter, got 'tanh:2'"),
        ("leaky_relu", "activation 'leaky_relu' must be written leaky_relu:<slope>"),
        ("elu:1:2", "activation 'elu' must be written elu:<alpha>, got 'elu:1:2'"),
        ("clamp:1", "activation 'clamp' must be written clamp:<low>:<high>, got 'clamp:1'"),
        ("clamp:2:1", "activation 'clamp' must be written clamp:<low>:<high>, got 'clamp:2:1'"),
        ("clamp:nan:1", "activation 'clamp' must be written clamp:<low>:<high>"),
        ("mish:1", "activation 'mish' takes no parameter, got 'mish:1'"),
        ("elu:one", "activation 'elu' must be written elu:<alpha>, got 'elu:one'"),
    ],
)
def test_unknown_names_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        parse(names.split(","))
