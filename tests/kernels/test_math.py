"""The C++ engine's elementary functions and activations, at every instruction-set level."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from vaefast.functional.activations import named, parse

_C = pytest.importorskip("vaefast._C", reason="the C++ extension is not built")

DTYPES = (np.float32, np.float64)
FUNCTIONS = ("exp", "expm1", "log", "log1p_unit", "tanh", "sigmoid", "softplus", "normal_cdf")
KINDS = ("identity", "relu", "leaky_relu", "elu", "tanh", "sigmoid", "softplus", "silu", "gelu")
KINDS += ("gelu_tanh", "exp_half", "maxmin", "clamp", "hardswish", "mish", "selu")
ELEMENTWISE = tuple(kind for kind in KINDS if kind != "maxmin")
PARAMETER = {"leaky_relu": "0.01", "elu": "1.3", "clamp": "-0.8:1.1"}
PAD = 16  # a multiple of every level's vector width


def suffix(dtype):
    return "f32" if np.dtype(dtype) == np.float32 else "f64"


def evaluate(function, x):
    out = np.full(x.size + PAD, np.nan, x.dtype)
    call = getattr(_C, f"evaluate_{suffix(x.dtype)}")
    call(FUNCTIONS.index(function), x.ctypes.data, out.ctypes.data, x.size)
    assert np.isnan(out[x.size :]).all()  # nothing is written past the end
    return out[: x.size]


def activate(kind, a, with_slope=True):
    assert a.size % PAD == 0
    h, slope = np.full_like(a, np.nan), np.full_like(a, np.nan)
    address = slope.ctypes.data if with_slope else 0
    call = getattr(_C, f"activate_{suffix(a.dtype)}")
    _, parameters = named(written(kind))
    call(KINDS.index(kind), *parameters, a.ctypes.data, h.ctypes.data, address, a.size)
    return h, slope


def multiply_slope(kind, slope, t):
    t = t.copy()
    call = getattr(_C, f"multiply_slope_{suffix(t.dtype)}")
    call(KINDS.index(kind), slope.ctypes.data, t.ctypes.data, t.size)
    return t


def bits(x):
    return x.view(np.int32 if x.dtype == np.float32 else np.int64)


def sigmoid(x):
    u = np.exp(-np.abs(x))
    return np.where(x < 0, u, 1) / (1 + u)


def normal_cdf(x):
    """To the precision of x's type; mpmath's where x has more than float64."""
    if x.dtype == np.float64:
        return torch.special.erfc(torch.from_numpy(x) / -(2**0.5)).numpy() / 2
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(30):
        return np.array([x.dtype.type(mpmath.nstr(mpmath.ncdf(float(v)), 25)) for v in x])


TRUTH = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p_unit": np.log1p,
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "normal_cdf": normal_cdf,
}
# Ranges: gradual underflow to 0 and overflow to infinity are inside, for float64 in the second.
DOMAIN = {
    "exp": ((-110, 92), (-750, 712)),
    "expm1": ((-110, 92), (-750, 712)),
    "log": ((0, 3.4e38), (0, 1.7e308)),
    "log1p_unit": ((0, 1), (0, 1)),
    "tanh": ((-50, 50), (-50, 50)),
    "sigmoid": ((-110, 110), (-750, 750)),
    "softplus": ((-110, 110), (-750, 750)),
    "normal_cdf": ((-15, 15), (-39, 39)),
}
ULPS = dict.fromkeys(FUNCTIONS, (2.0, 2.5)) | {"normal_cdf": (6.5, 8.0)}


def points(dtype, low, high, count):
    """Evenly spread, evenly spread around 0, and random bit patterns, inside [low, high]."""
    rng = np.random.default_rng(7)
    integers = np.int32 if dtype == np.float32 else np.int64
    info = np.iinfo(integers)
    patterns = rng.integers(info.min, info.max, count, integers, endpoint=True).view(dtype)
    spread = rng.uniform(low / 2, high / 2, count) * 2, rng.uniform(-2, 2, count)
    x = np.concatenate([np.linspace(low, high, count), *spread, patterns]).astype(dtype)
    return np.ascontiguousarray(x[(x >= low) & (x <= high)])


def ulps(result, truth):
    """Error in units in the last place of the rounded truth; 0 where both are the same infinity."""
    rounded = truth.astype(result.dtype)
    finite = np.isfinite(rounded)
    assert (result[~finite] == rounded[~finite]).all()
    assert np.isfinite(result[finite]).all()
    unit = np.spacing(np.abs(rounded[finite])).astype(truth.dtype)
    return (np.abs(result[finite].astype(truth.dtype) - truth[finite]) / unit).max()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_error_in_last_places(function, dtype):
    double = dtype == np.float64
    wide = np.longdouble if double else np.float64
    count = 400 if double and function == "normal_cdf" else 100_000
    x = points(dtype, *DOMAIN[function][double], count)
    error = ulps(evaluate(function, x), TRUTH[function](x.astype(wide)))
    assert error <= ULPS[function][double]


INF, NAN = np.inf, np.nan
SPECIAL = {
    "exp": ([0.0, -0.0, INF, -INF, 1e30, -1e30], [1, 1, INF, 0, INF, 0]),
    "expm1": ([0.0, -0.0, INF, -INF, 1e30, -1e30, 1e-40], [0.0, -0.0, INF, -1, INF, -1, 1e-40]),
    "log": ([0.0, -0.0, INF, -INF, -1.0, -1e-40, 1.0], [-INF, -INF, INF, NAN, NAN, NAN, 0]),
    "log1p_unit": ([0.0, 1e-40], [0.0, 1e-40]),
    "tanh": ([0.0, -0.0, INF, -INF, 1e30, -1e30, -1e-40], [0.0, -0.0, 1, -1, 1, -1, -1e-40]),
    "sigmoid": ([0.0, -0.0, INF, -INF, 1e30, -1e30], [0.5, 0.5, 1, 0, 1, 0]),
    "softplus": ([INF, -INF, 1e30, -1e30], [INF, 0, 1e30, 0]),
    "normal_cdf": ([0.0, -0.0, INF, -INF, 1e30, -1e30], [0.5, 0.5, 1, 0, 1, 0]),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_special_values(function, dtype):
    x, expected = (np.array([NAN, *values], dtype) for values in SPECIAL[function])
    result = evaluate(function, x)
    np.testing.assert_array_equal(result, expected)
    zeros = expected == 0
    assert (np.signbit(result) == np.signbit(expected))[zeros].all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_bits_depend_on_the_element_alone(function, dtype):
    """Wherever it lies in a vector, in a padded tail, and whatever its neighbours are."""
    low, high = DOMAIN[function][0]
    x = np.linspace(low, min(high, 100), 67).astype(dtype)
    whole = bits(evaluate(function, x))
    for start in range(0, 67, 5):
        for stop in range(start + 1, min(start + 19, 68)):
            part = evaluate(function, np.ascontiguousarray(x[start:stop]))
            assert (bits(part) == whole[start:stop]).all()
    beside = np.stack([x, np.full_like(x, NAN)], 1).ravel()
    assert (bits(evaluate(function, beside))[::2] == whole).all()


def written(kind):
    return f"{kind}:{PARAMETER[kind]}" if kind in PARAMETER else kind


def reference(kind, a, dtype):
    """Value and slope by the specification, at the given precision, as float64."""
    (activation,) = parse([written(kind)])
    a = torch.from_numpy(a).to(dtype)
    h = activation.value(a)
    slope = activation.multiply(a, h, torch.ones_like(a))
    return h.double().numpy(), slope.double().numpy()


def exact(kind, a):
    """The specification in float64, but for the values of both gelus: torch's own cancel."""
    value, slope = reference(kind, a, torch.float64)
    a = torch.from_numpy(a).double()
    if kind == "gelu":
        value = (a * torch.special.erfc(a / -math.sqrt(2)) / 2).numpy()
    if kind == "gelu_tanh":
        u = math.sqrt(8 / math.pi) * (a + 0.044715 * a**3)
        value = (a * torch.sigmoid(u)).numpy()
    return value, slope


def pre_activations(dtype, reach):
    rng = np.random.default_rng(3)
    a = np.concatenate([np.linspace(-reach, reach, 4096), rng.normal(0, 1, 4096)]).astype(dtype)
    a[:4] = 0.0, -0.0, 1e-40, -1e-40
    return a


@pytest.mark.parametrize("reach", [12, 150])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_activation_errs_at_most_twice_what_eager_errs(kind, dtype, reach):
    a = pre_activations(dtype, reach)
    eager = reference(kind, a, torch.from_numpy(a).dtype)
    for result, truth, other in zip(activate(kind, a), exact(kind, a), eager):
        scale = np.maximum(np.abs(truth), 0.25)  # some slopes cross 0
        error, allowed = (np.max(np.abs(v - truth) / scale) for v in (result, other))
        assert error <= 2 * allowed + 6 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["elu", "tanh", "sigmoid", "softplus", "exp_half", "selu"])
def test_values_and_slopes_do_not_cancel_where_a_unit_saturates(kind, dtype):
    a = pre_activations(dtype, 40)
    for result, truth in zip(activate(kind, a), reference(kind, a, torch.float64)):
        unit = np.maximum(np.finfo(dtype).eps * np.abs(truth), np.finfo(dtype).smallest_subnormal)
        assert (np.abs(result - truth) <= 6 * unit).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_activation_of_special_values(kind, dtype):
    """NaN and infinities as the specification has them; huge finite values give no NaN."""
    a = np.zeros(PAD, dtype)
    a[:6] = NAN, INF, -INF, 0.0, 1e30, -1e30
    value, slope = activate(kind, a)
    truth = reference(kind, a, torch.float64)
    for result, expected in zip((value, slope), truth):
        same = np.isnan(expected) | np.isclose(result, expected, rtol=1e-6, atol=1e-12)
        same |= np.isinf(expected) & (result == expected)
        assert same.all(), (result, expected)
    assert np.isnan(value[0])
    assert np.isnan(slope[0]) == np.isnan(truth[1][0])
    assert not np.isnan([value[3:], slope[3:]]).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_value_has_the_same_bits_in_place_and_without_slope(kind, dtype):
    a = pre_activations(dtype, 20)
    value, _ = activate(kind, a)
    alone, untouched = activate(kind, a, with_slope=False)
    assert (bits(alone) == bits(value)).all()
    assert np.isnan(untouched).all()
    call = getattr(_C, f"activate_{suffix(dtype)}")
    address = a.ctypes.data
    call(KINDS.index(kind), *named(written(kind))[1], address, address, 0, a.size)
    assert (bits(a) == bits(value)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_multiply_slope_is_the_reference_product(kind, dtype):
    rng = np.random.default_rng(5)
    a = rng.normal(0, 2, 320).astype(dtype)
    a[:8] = 1, 1, NAN, 1, 1, NAN, -0.0, 0.0  # ties and NaN
    t = rng.normal(size=320).astype(dtype)
    value, slope = activate(kind, a)
    (activation,) = parse([written(kind)])
    exact = torch.from_numpy(a).double()
    h = activation.value(exact)
    truth = activation.multiply(exact, h, torch.from_numpy(t).double()).numpy()
    result = multiply_slope(kind, slope, t)
    if kind == "maxmin":
        np.testing.assert_array_equal(result, truth)
        np.testing.assert_array_equal(value, h.numpy())
    np.testing.assert_allclose(result, truth, rtol=0, atol=20 * np.finfo(dtype).eps)


@pytest.mark.parametrize("level", _C.isa_levels())
def test_every_level_passes(level):
    if level == _C.isa():
        pytest.skip("this process runs it")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-k", "not every_level", __file__]
    environment = {**os.environ, "VAEFAST_ISA": level, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/")
    assert result.returncode == 0, result.stdout[-2000:]
