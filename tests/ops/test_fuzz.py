"""Random shapes, layouts and values: no crash, the reference's numbers, rows that stay apart."""

import os
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import vaefast as vf
from vaefast import ops
from vaefast.bench.cases import ACTIVATIONS, network
from vaefast.types import LIKELIHOODS, Network

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

WIDTHS = (0, 1, 2, 3, 7, 16, 17, 33, 65)
BAD = (torch.nan, torch.inf, -torch.inf, 3e38, -3e38, 1e-40)
OPS = (
    "net_forward", "net_potential", "net_trajectory", "net_chain", "leapfrog_step",
    "log_likelihood", "pgd_step", "decode_distance", "net_jvp", "net_vjp", "net_jacobian_gram",
)  # fmt: skip
FUZZ = hypothesis.settings(
    max_examples=int(os.environ.get("VAEFAST_FUZZ", "40")),  # `make proofs` takes many more
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


class Problem(NamedTuple):
    rows: dict[str, torch.Tensor]  # each has a multiple of B rows
    net: Network
    options: dict[str, Any]


@pytest.fixture(params=OPS)
def op(request, require):
    require(request.param, "cpp")
    return request.param


@pytest.fixture(autouse=True)
def _same_threads_after():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def problem(op, draw, B, C, net, like):
    """Inputs of an op for B inputs of C chains; draw(*shape) makes a tensor."""
    d, D, N = net.in_features, net.out_features, B * C
    images = {"x": draw(B, D)}
    state = {"z": draw(N, d), "p": draw(N, d), "grad": draw(N, d)}
    scales = {"step": 0.05 * draw(N).abs(), "inv_mass": draw(B, d).abs()}
    if op == "net_forward":
        return Problem({"z": state["z"]}, net, {})
    if op == "net_potential":
        return Problem({"z": state["z"]} | images, net, like)
    if op == "net_trajectory":
        return Problem(state | images | scales, net, like | {"leapfrog": 2})
    if op == "net_chain":
        rows = {"z": state["z"], "grad": state["grad"], "U": draw(N).double(), "x": images["x"]}
        rows |= {"step": 0.05 * draw(B).abs(), "inv_mass": scales["inv_mass"]}
        return Problem(rows, net, like | {"leapfrog": 2, "steps": 3, "thin": 1, "jitter": 0.1})
    if op == "leapfrog_step":
        return Problem(state | scales, net, {"kick": 0.5})
    if op == "log_likelihood":
        return Problem({"out": draw(N, D)} | images, net, like)
    if op == "pgd_step":
        rows = {name: draw(B, D) for name in ("x_adv", "grad", "x")}
        norm = "l2" if C > 1 else "linf"
        return Problem(rows, net, {"alpha": 0.1, "eps": 0.3, "low": -1.0, "norm": norm})
    if op == "decode_distance":
        rows = {"mean": draw(B, d), "std": draw(B, d), "centre": draw(B, D)}
        return Problem(rows | {"r": draw(B).abs() * D**0.5}, net, {"samples": 20 * C})
    if op == "net_jacobian_gram":
        return Problem({"x": draw(B, d)}, net, {})
    probes = {"v": draw(B, C, d)} if op == "net_jvp" else {"u": draw(B, C, D)}
    return Problem({"x": draw(B, d)} | probes, net, {"full": True})


def run(op, given, backend="cpp"):
    """All results of the op, each with a multiple of B rows."""
    rows, options = dict(given.rows), given.options | {"backend": backend}
    if op == "leapfrog_step":
        rows["z"], rows["p"] = rows["z"].clone(), rows["p"].clone()
        ops.leapfrog_step(**rows, **options)
        return rows["z"], rows["p"]
    call = vf.pgd_step if op == "pgd_step" else getattr(ops, op)
    if op not in ("log_likelihood", "pgd_step"):
        rows["net"] = given.net
    results = call(**rows, **options)
    return tuple(results) if isinstance(results, tuple) else (results,)


def normal(seed, dtype):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    return draw


def same(a, b):
    return torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


LAYOUTS = {
    "strided": lambda t: t.new_full([2 * n for n in t.shape], torch.nan)[
        tuple(slice(1, None, 2) for _ in t.shape)
    ].copy_(t),
    "transposed": lambda t: t.mT.contiguous().mT if t.ndim > 1 else t.clone(),
    "offset": lambda t: t.new_full((t.numel() + 3,), torch.nan)[3:].view(t.shape).copy_(t),
}


@st.composite
def networks(draw, dtype):
    depth = draw(st.integers(1, 3))
    names = [draw(st.sampled_from(ACTIVATIONS)) for _ in range(depth)]
    widths = [draw(st.sampled_from(WIDTHS))]
    for name in names:
        width = draw(st.sampled_from(WIDTHS))
        widths.append(width + width % 2 if name == "maxmin" else width)
    seed = draw(st.integers(0, 99))
    net = network(tuple(widths), ",".join(names), dtype=dtype, seed=seed)
    return net._replace(biases=[b if draw(st.booleans()) else None for b in net.biases])


@st.composite
def problems(draw, op, dtype):
    B, C = draw(st.integers(0, 5)), draw(st.integers(1, 3))
    likelihood = draw(st.sampled_from(LIKELIHOODS))
    std = [0.7] if likelihood == "gaussian" else []
    like = {"likelihood": likelihood, "likelihood_params": std}
    torch.set_num_threads(draw(st.integers(1, 3)))
    return problem(op, normal(draw(st.integers(0, 99)), dtype), B, C, draw(networks(dtype)), like)


@FUZZ
@hypothesis.given(data=st.data())
def test_any_shape_gives_the_numbers_of_the_reference(op, data):
    case = data.draw(problems(op, torch.float64))
    found, expected = run(op, case), run(op, case, "reference")
    for a, b in zip(found, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        scale = b.abs().nan_to_num(0, 0, 0).max().item() if b.numel() else 0
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10 * (1 + scale), equal_nan=True)


@FUZZ
@hypothesis.given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_no_layout_changes_a_bit(op, data, dtype):
    case = data.draw(problems(op, dtype))
    layout = LAYOUTS[data.draw(st.sampled_from(sorted(LAYOUTS)))]
    net = case.net
    biases = [None if b is None else layout(b) for b in net.biases]
    views = Problem(
        {name: layout(t) for name, t in case.rows.items()},
        net._replace(weights=[layout(w) for w in net.weights], biases=biases),
        case.options,
    )
    for a, b in zip(run(op, views), run(op, case), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert same(a, b)


@FUZZ
@hypothesis.given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_a_bad_value_stays_in_its_row(op, data, dtype):
    case = data.draw(problems(op, dtype))
    B = min(len(t) for t in case.rows.values())
    filled = sorted(name for name, t in case.rows.items() if t.numel())
    if not (B and filled):
        return
    b, name = data.draw(st.integers(0, B - 1)), data.draw(st.sampled_from(filled))
    clean = run(op, case)
    of_input = case.rows[name].view(B, -1)[b]
    of_input[data.draw(st.integers(0, len(of_input) - 1))] = data.draw(st.sampled_from(BAD))
    others = [i for i in range(B) if i != b]
    for before, after in zip(clean, run(op, case), strict=True):
        assert same(before.reshape(B, -1)[others], after.reshape(B, -1)[others])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_million_random_bytes_as_numbers(op, dtype):
    """NaN payloads, denormals, infinities: in the inputs, in the weights, everywhere."""
    numbers = torch.frombuffer(bytearray(np.random.default_rng(8).bytes(10**6)), dtype=dtype)
    used = 0

    def draw(*shape):
        nonlocal used
        count = int(np.prod(shape))
        piece = numbers[torch.arange(used, used + count) % len(numbers)]
        used += count
        return piece.reshape(shape)

    like = {"likelihood": "bernoulli"}
    clean = network((9, 30, 70), "tanh,identity", dtype=dtype)
    while used < len(numbers):
        names = [ACTIVATIONS[(used + k) % len(ACTIVATIONS)] for k in range(2)]
        weights = [draw(30, 9), draw(70, 30)]
        wild = Network.mlp(weights, [draw(30), draw(70)], ",".join(names))
        like["likelihood"] = LIKELIHOODS[used % 4]
        for net in (wild, clean):
            case = problem(op, draw, 50, 3, net, like)
            first, second = run(op, case), run(op, case)
            assert all(same(a, b) for a, b in zip(first, second, strict=True))
