"""The GPU kernels' shared device functions: in Triton's interpreter, or compiled on a GPU."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from vaefast import philox as reference_philox
from vaefast.functional.activations import ACTIVATIONS, named, parse
from vaefast.functional.likelihoods import PIXEL_LIKELIHOODS
from vaefast.runtime.backends import interpreted
from vaefast.types import LIKELIHOODS

pytest.importorskip("triton", reason="triton is not installed")
if not interpreted() and not torch.cuda.is_available():
    pytest.skip("no GPU, and TRITON_INTERPRET is not 1", allow_module_level=True)

import triton
import triton.language as tl

from vaefast.kernels.common import elementary, philox
from vaefast.kernels.common.activations import activate, through
from vaefast.kernels.common.likelihoods import log_density, parameters_of, std_at

DEVICE = "cpu" if interpreted() else "cuda"
TABLE = json.loads((Path(__file__).parent.parent / "data" / "philox.json").read_text())
FEATURES, ROWS = 256, 512
PARAMETER = {"leaky_relu": "0.01", "elu": "1.3", "clamp": "-0.8:1.1"}
ELEMENTWISE = sorted(set(ACTIVATIONS) - {"maxmin"})
SATURATING = ("elu", "tanh", "sigmoid", "softplus", "exp_half", "selu")
NAN, INF = math.nan, math.inf


@triton.jit
def _activate_kernel(
    p_y, p_s, p_dv, p_v, p_dy,
    WIDTH: tl.constexpr, ACT: tl.constexpr, PARAM: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    i_out = tl.arange(0, BLOCK_M)
    o = i_out[:, None] * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    y, s = activate(tl.load(p_v + o), i_out, WIDTH, ACT, PARAM)
    tl.store(p_y + o, y)
    tl.store(p_s + o, s)
    tl.store(p_dv + o, through(tl.load(p_dy + o), s, i_out, WIDTH, ACT))


def run_activation(kind, v, dy, width=None):
    """y, s and dv of pre-activations and gradients [features, rows]."""
    M, N = v.shape
    given = [t.contiguous().to(DEVICE) for t in (v, dy)]
    results = [torch.full_like(given[0], NAN) for _ in range(3)]
    _activate_kernel[(1,)](
        *results, *given, WIDTH=width or M, ACT=kind, PARAM=named(written(kind))[1],
        BLOCK_M=M, BLOCK_N=N,
    )  # fmt: skip
    return [t.cpu() for t in results]


def written(kind):
    return f"{kind}:{PARAMETER[kind]}" if kind in PARAMETER else kind


def parsed(kind):
    (activation,) = parse([written(kind)])
    return activation


def value_and_gradient(kind, v, dy):
    """By the reference, whose features are columns."""
    a = v.T.contiguous()
    h = parsed(kind).value(a)
    return h.T, parsed(kind).multiply(a, h, dy.T.contiguous()).T


def exact(kind, v, dy):
    """In float64; gelu through the reference's slope, which keeps its tails: φ(a) = a·Φ(a)."""
    value, gradient = value_and_gradient(kind, v.double(), dy.double())
    if kind == "gelu":
        value = v.double() * torch.special.erfc(-v.double() / math.sqrt(2)) / 2
    return value, gradient


def pre_activations(reach, seed=0):
    generator = torch.Generator().manual_seed(seed)
    v = reach * (2 * torch.rand(FEATURES, ROWS, generator=generator) - 1)
    v[: FEATURES // 4] /= reach * 10 ** (6 * torch.rand(FEATURES // 4, 1, generator=generator))
    return v, torch.randn(FEATURES, ROWS, generator=generator)


def worst(result, truth, scale):
    return ((result.double() - truth).abs() / scale).max()


@pytest.mark.parametrize("reach", [12, 150])
@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_activation_errs_at_most_twice_what_eager_errs(kind, reach):
    v, dy = pre_activations(reach)
    y, _, dv = run_activation(kind, v, dy)
    truth, eager = exact(kind, v, dy), value_and_gradient(kind, v, dy)
    for result, right, other, slope in zip((y, dv), truth, eager, (1.0, dy.double().abs())):
        scale = (right.abs() / slope).clamp(min=0.25) * slope  # some slopes cross 0
        assert worst(result, right, scale) <= 2 * worst(other, right, scale) + 2**-21


@pytest.mark.parametrize("kind", SATURATING)
def test_values_and_slopes_keep_their_digits_where_a_unit_saturates(kind):
    v, dy = pre_activations(40)
    y, s, dv = run_activation(kind, v, torch.ones_like(dy))
    assert torch.equal(s, dv)
    for result, right in zip((y, s), exact(kind, v, torch.ones_like(dy))):
        assert worst(result, right, right.abs().clamp(min=2.0**-126)) <= 6 * 2**-23


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_activation_of_special_values(kind):
    """NaN and infinities as the specification has them; huge finite values give no NaN."""
    v = torch.tensor([[NAN, INF, -INF, 0.0, 1e30, -1e30, 89.5, -89.5]]).repeat(2, 1)
    y, s, _ = run_activation(kind, v, torch.ones_like(v))
    for result, right in zip((y, s), value_and_gradient(kind, v.double(), torch.ones_like(v))):
        found = torch.where(right.isnan(), right, result)  # infinities may meet their limits
        torch.testing.assert_close(found, right.to(found), rtol=1e-6, atol=1e-12, equal_nan=True)
        assert not result[:, 3:].isnan().any()
    assert y[:, 0].isnan().all()


@pytest.mark.parametrize("width", [FEATURES, FEATURES - 1])
def test_maxmin_swaps_pairs_and_leaves_an_odd_last_feature(width):
    v, dy = pre_activations(3)
    v[:8, 0] = torch.tensor([1.0, 1.0, NAN, 1.0, 1.0, NAN, -0.0, 0.0])  # ties and NaN
    y, s, dv = run_activation("maxmin", v, dy, width)
    even = width // 2 * 2
    value, gradient = value_and_gradient("maxmin", v[:even], dy[:even])
    for result, right, given in zip((y, dv), (value, gradient), (v, dy)):
        expected = torch.cat((right, given[even:width]))
        torch.testing.assert_close(result[:width], expected, rtol=0, atol=0, equal_nan=True)
    assert set(s.unique().tolist()) == {0.0, 1.0}


@triton.jit
def _evaluate_kernel(p_out, p_x, FUNCTION: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    x = tl.load(p_x + i)
    if FUNCTION == "exp":
        value = elementary.exp(x)
    elif FUNCTION == "exp_of_minus":
        value = elementary.exp_of_minus(x)
    elif FUNCTION == "expm1":
        value, _ = elementary.exp_below(x)
    elif FUNCTION == "log":
        value = elementary.log(x)
    elif FUNCTION == "log1p_unit":
        value = elementary.log1p_unit(x)
    elif FUNCTION == "reciprocal":
        value = elementary.reciprocal_above_one(x)
    else:
        value, _ = elementary.normal_distribution(x)
    tl.store(p_out + i, value)


TRUTH = {  # function, in float64, and its domain
    "exp": (np.exp, -87, 88.7),
    "exp_of_minus": (lambda x: np.exp(-x), 0, 87),
    "expm1": (np.expm1, -110, 0),
    "log": (np.log, 1.2e-38, 3.4e38),
    "log1p_unit": (np.log1p, 0, 1),
    "reciprocal": (lambda x: 1 / (1 + x), 0, 1),
    "normal": (lambda x: torch.special.erfc(torch.from_numpy(x) / -(2**0.5)).numpy() / 2, -13, 13),
}


@pytest.mark.parametrize("function", TRUTH)
def test_error_in_last_places(function):
    right, low, high = TRUTH[function]
    rng = np.random.default_rng(3)
    n = 1 << 16
    patterns = rng.integers(-(2**31), 2**31, n, np.int64).astype(np.int32).view(np.float32)
    spread = np.linspace(low, high, n), rng.uniform(-2, 2, n), np.exp(rng.uniform(-85, 88, n))
    x = np.concatenate([*(part.astype(np.float32) for part in spread), patterns])
    x = x[(x >= low) & (x <= high) & (np.abs(x) > 1e-37)][-n:]
    given = torch.from_numpy(np.resize(x, n)).to(DEVICE)
    out = torch.full_like(given, NAN)
    _evaluate_kernel[(1,)](out, given, FUNCTION=function, BLOCK=n)
    truth = right(given.cpu().double().numpy())
    unit = np.spacing(np.maximum(np.abs(truth), 2.0**-126).astype(np.float32)).astype(np.float64)
    error = np.abs(out.cpu().double().numpy() - truth) / unit
    assert error.max() <= (6.5 if function == "normal" else 2.0)


@triton.jit
def _likelihood_kernel(
    p_logp, p_score, p_out, p_x, p_std, LIKELIHOOD: tl.constexpr, BLOCK: tl.constexpr
):
    i = tl.arange(0, BLOCK)
    std = std_at(p_std, i, i < BLOCK, LIKELIHOOD)
    logp, score = log_density(tl.load(p_out + i), tl.load(p_x + i), LIKELIHOOD, std)
    tl.store(p_logp + i, logp)
    tl.store(p_score + i, score)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_pixels_err_at_most_twice_what_eager_errs(likelihood, dtype):
    generator = torch.Generator().manual_seed(1)
    size = 10 ** (9 * torch.rand(1 << 14, generator=generator, dtype=torch.float64) - 6)
    near = 1 + torch.rand(1 << 14, generator=generator, dtype=torch.float64) * 15
    out = torch.cat((size, -size, near, -near)).to(dtype)
    out[:2] = torch.tensor([0.0, -0.0])
    x = torch.rand(len(out), generator=generator, dtype=torch.float64).to(dtype)
    given = [t.to(DEVICE) for t in (out, x)]
    found = [torch.full_like(given[0], NAN) for _ in range(2)]
    pixel = PIXEL_LIKELIHOODS[likelihood]
    stds = [0.2 + torch.rand(len(out), generator=generator).to(dtype) for _ in pixel.parameters]
    p_std = stds[0].to(DEVICE) if stds else None
    _likelihood_kernel[(1,)](*found, *given, p_std, LIKELIHOOD=likelihood, BLOCK=len(out))
    inside = (out.double().abs() - math.log(99999)).abs() > 1e-5  # the clamp, as float32 has it
    for result, function in zip(found, (pixel.log_density, pixel.derivative)):
        truth = function(out.double(), x.double(), *(std.double() for std in stds))[inside]
        scale = 1 + truth.abs()
        allowed = worst(function(out, x, *stds)[inside], truth, scale)
        error = worst(result.cpu()[inside], truth, scale)
        assert error <= 2 * allowed + 4 * torch.finfo(dtype).eps


STDS = {  # of images [3, 5]: one for all, per pixel, per image; with one unusable
    "one": torch.tensor(0.3, dtype=torch.float64),
    "pixels": torch.linspace(0.3, 2, 5, dtype=torch.float64),
    "images": torch.linspace(0.3, 2, 15, dtype=torch.float64).view(3, 5),
    "unusable": torch.tensor([[0.5], [-1.0], [2.0]], dtype=torch.float64).expand(3, 5),
}


@pytest.mark.parametrize("std", STDS.values(), ids=STDS)
def test_parameters_address_each_pixel_s_std(std):
    found = parameters_of("gaussian", [std], std.new_zeros(3, 5))
    i_x, i_d = torch.arange(3)[:, None], torch.arange(5)
    at = found.p_std.as_strided((1 + 2 * found.s_std + 4 * found.c_std,), (1,))
    full = std.expand(3, 5)
    assert torch.equal(at[i_x * found.s_std + i_d * found.c_std], full)
    right = -(full.log() + 0.5 * math.log(2 * math.pi)).sum(1)
    torch.testing.assert_close(found.p_constant, right, equal_nan=True)


@pytest.mark.parametrize("likelihood", sorted(set(LIKELIHOODS) - {"gaussian"}))
def test_a_likelihood_without_parameters_addresses_none(likelihood):
    assert parameters_of(likelihood, [], torch.zeros(3, 5)) == (None, None, 0, 0)


@triton.jit(do_not_specialize=["seed_low", "seed_high"])
def _philox_kernel(
    p_bits, p_uniform, p_normal, p_four, p_place, seed_low, seed_high, BLOCK: tl.constexpr
):
    n = tl.arange(0, BLOCK)
    element, step, index = tl.load(p_place + n), tl.load(p_place + BLOCK + n), p_place + 2 * BLOCK
    index, lane = tl.load(index + n), tl.load(index + BLOCK + n)
    use = tl.load(p_place + 4 * BLOCK + n)
    tl.store(p_bits + n, philox.bits(element, step, index, use, lane, seed_low, seed_high))
    tl.store(p_uniform + n, philox.uniform(element, step, index, use, lane, seed_low, seed_high))
    tl.store(p_normal + n, philox.normal(element, step, index, use, lane, seed_low, seed_high))
    a, b, c, d = philox.normals(element // 4, step, index, use, lane, seed_low, seed_high)
    tl.store(p_four + 4 * n, a)
    tl.store(p_four + 4 * n + 1, b)
    tl.store(p_four + 4 * n + 2, c)
    tl.store(p_four + 4 * n + 3, d)


def signed(word):
    return word - (1 << 32) if word >= 1 << 31 else word


def draw(places, seed):
    """Integers, uniforms, normals and normals by fours of [(element, step, index, lane, use)]."""
    n = len(places)
    place = torch.tensor(places).T.contiguous().to(DEVICE)
    dtypes = (torch.int64, torch.float64, torch.float32)
    results = [torch.zeros(n, dtype=dtype, device=DEVICE) for dtype in dtypes]
    four = torch.full((n, 4), NAN, device=DEVICE)
    words = signed(seed & 0xFFFFFFFF), signed(seed >> 32)
    _philox_kernel[(1,)](*results, four, place, *words, BLOCK=n)
    return [t.cpu() for t in (*results, four)]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"use{row['use']}")
def test_table_of_known_values(row):
    place = [row[name] for name in ("element", "step", "index", "lane", "use")]
    bits, uniform, normal, four = draw([place], row["seed"])
    assert bits.item() == row["bits"]
    assert uniform.item() == row["uniform"]
    assert normal.item() == pytest.approx(row["normal"], abs=2e-6)
    assert four[0, row["element"] % 4].item() == normal.item()


def test_normals_of_every_size():
    """Against float64, with the words of both ends: the largest normals and the smallest."""
    places = [(e, 5, i, 9, 10) for i in range(1 << 9) for e in range(1 << 7)]
    bits, _, normal, four = draw(places, 2**64 - 3)
    options = {"seed": 2**64 - 3, "index": torch.arange(1 << 9), "step": 5, "lane": 9, "use": 10}
    assert torch.equal(bits, reference_philox.integers(1 << 7, **options).flatten())
    truth = reference_philox.normal(1 << 7, **options).flatten()
    assert (normal.double() - truth).abs().max() <= 1.5e-6
    assert torch.equal(four.view(-1, 4, 4)[:, 0].flatten(), normal)


@triton.jit
def _box_muller_kernel(p_first, p_second, p_u, p_v, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    u, v = tl.load(p_u + i).to(tl.uint32), tl.load(p_v + i).to(tl.uint32)
    first, second = philox.box_muller(u, v)
    tl.store(p_first + i, first)
    tl.store(p_second + i, second)


def test_box_muller_at_the_ends_of_its_words():
    k = [0, 1, 2, 2**24, 2**29 - 1, 2**29, 2**30, 2**31 - 1, 2**31, 2**31 + 1, 3037000499]
    k += [3037000500, 3 * 2**29, 7 * 2**29 - 1, 7 * 2**29, 2**32 - 2**24, 2**32 - 2, 2**32 - 1]
    u, v = (t.flatten() for t in torch.meshgrid(torch.tensor(k), torch.tensor(k), indexing="ij"))
    u, v = (torch.nn.functional.pad(t, (0, 512 - len(t))).to(DEVICE) for t in (u, v))
    first, second = (torch.full((512,), NAN, device=DEVICE) for _ in range(2))
    _box_muller_kernel[(1,)](first, second, u, v, BLOCK=512)
    radius = (-2 * ((u.cpu().double() + 0.5) * 2.0**-32).log()).sqrt()
    upper = u.cpu() >= 2**31
    radius[upper] = (-2 * torch.log1p((u.cpu().double() - 2**32 + 0.5) * 2.0**-32)).sqrt()[upper]
    angle = (v.cpu().double() + 0.5) * (2 * math.pi * 2.0**-32)
    for result, truth in zip((first, second), (radius * angle.cos(), radius * angle.sin())):
        assert ((result.cpu().double() - truth).abs() <= 3e-7 * radius + 1e-12).all()
