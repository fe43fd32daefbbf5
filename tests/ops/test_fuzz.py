"""Random shapes, layouts and values: no crash, the reference's numbers, rows that stay apart."""

import os

import numpy as np
import pytest
import torch
from samples import SAMPLES, Shape, same
from torch import Tensor

from vaefast.bench.cases import ACTIVATIONS
from vaefast.runtime.backends import has

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

WIDTHS = (0, 1, 2, 3, 7, 16, 17, 33, 65)
DTYPES = [torch.float32, torch.float64]
BAD = (torch.nan, torch.inf, -torch.inf, 3e38, -3e38, 1e-40)
OPS = sorted({sample.op for sample in SAMPLES if has(sample.op, "cpp")})
FUZZ = hypothesis.settings(
    max_examples=int(os.environ.get("VAEFAST_FUZZ", "40")),  # `make proofs` takes many more
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


@pytest.fixture(params=OPS)
def op(request, require):
    require(request.param, "cpp")
    return request.param


@pytest.fixture(autouse=True)
def _same_threads_after():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def around(t):
    """What lies beside a view's numbers: nothing that a kernel may read."""
    return torch.nan if t.is_floating_point() else -1


LAYOUTS = {
    "strided": lambda t: t.new_full([2 * n for n in t.shape], around(t))[
        tuple(slice(1, None, 2) for _ in t.shape)
    ].copy_(t),
    "transposed": lambda t: t.mT.contiguous().mT if t.ndim > 1 else t.clone(),
    "offset": lambda t: t.new_full((t.numel() + 3,), around(t))[3:].view(t.shape).copy_(t),
}


@st.composite
def shapes(draw):
    depth = draw(st.integers(1, 3))
    names = [draw(st.sampled_from(ACTIVATIONS)) for _ in range(depth)]
    widths = [draw(st.sampled_from(WIDTHS))]
    for name in names:
        width = draw(st.sampled_from(WIDTHS))
        widths.append(width + width % 2 if name == "maxmin" else width)
    B, C, seed = (draw(st.integers(*ends)) for ends in ((0, 5), (1, 3), (0, 99)))
    return Shape(B, C, tuple(widths), ",".join(names), seed)


@st.composite
def problems(draw, op, dtype):
    """A sample, the number of its inputs, and its arguments, some biases missing."""
    sample = draw(st.sampled_from([sample for sample in SAMPLES if sample.op == op]))
    shape = draw(shapes())
    torch.set_num_threads(draw(st.integers(1, 3)))
    arguments = sample.make(dtype, shape)
    if "net" in arguments:
        net = arguments["net"]
        biases = [b if draw(st.booleans()) else None for b in net.biases]
        arguments["net"] = net._replace(biases=biases)
    return sample, shape.B, arguments


@FUZZ
@hypothesis.given(data=st.data())
def test_any_shape_gives_the_numbers_of_the_reference(op, data):
    sample, _, arguments = data.draw(problems(op, torch.float64))
    found, expected = (sample.call(arguments, backend) for backend in ("cpp", "reference"))
    for a, b in zip(found, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        scale = b.abs().nan_to_num(0, 0, 0).max().item() if b.numel() else 0
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10 * (1 + scale), equal_nan=True)


@FUZZ
@hypothesis.given(data=st.data(), dtype=st.sampled_from(DTYPES))
def test_no_layout_changes_a_bit(op, data, dtype):
    sample, _, arguments = data.draw(problems(op, dtype))
    layout = LAYOUTS[data.draw(st.sampled_from(sorted(LAYOUTS)))]
    views = {name: layout(t) if isinstance(t, Tensor) else t for name, t in arguments.items()}
    if "net" in views:
        net = views["net"]
        biases = [None if b is None else layout(b) for b in net.biases]
        views["net"] = net._replace(weights=[layout(w) for w in net.weights], biases=biases)
    for a, b in zip(sample.call(views, "cpp"), sample.call(arguments, "cpp"), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert same(a, b)


@FUZZ
@hypothesis.given(data=st.data(), dtype=st.sampled_from(DTYPES))
def test_a_bad_value_stays_in_its_row(op, data, dtype):
    sample, B, arguments = data.draw(problems(op, dtype))
    filled = [name for name in floating(sample, arguments) if arguments[name].numel()]
    if not (B and filled):
        return
    b, name = data.draw(st.integers(0, B - 1)), data.draw(st.sampled_from(filled))
    clean = sample.call(arguments, "cpp")
    spoiled = arguments[name].clone(memory_format=torch.contiguous_format)
    of_input = spoiled.view(B, -1)[b]
    of_input[data.draw(st.integers(0, len(of_input) - 1))] = data.draw(st.sampled_from(BAD))
    others = [i for i in range(B) if i != b]
    found = sample.call({**arguments, name: spoiled}, "cpp")
    for before, after in zip(clean, found, strict=True):
        assert same(before.reshape(B, -1)[others], after.reshape(B, -1)[others])


def floating(sample, arguments):
    return [name for name in sample.batched if arguments[name].is_floating_point()]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_million_random_bytes_as_numbers(op, dtype):
    """NaN payloads, denormals, infinities: in the inputs, in the weights, everywhere."""
    numbers = torch.frombuffer(bytearray(np.random.default_rng(8).bytes(10**6)), dtype=dtype)
    used = 0

    def like(t):
        nonlocal used
        piece = numbers[torch.arange(used, used + t.numel()) % len(numbers)]
        used += t.numel()
        return piece.reshape(t.shape).to(t.dtype)

    samples, turn = [sample for sample in SAMPLES if sample.op == op], 0
    while used < len(numbers):
        names = [ACTIVATIONS[(turn + k) % len(ACTIVATIONS)] for k in range(2)]
        sample, turn = samples[turn % len(samples)], turn + 1
        arguments = sample.make(dtype, Shape(50, 3, (9, 30, 70), ",".join(names)))
        arguments |= {name: like(arguments[name]) for name in floating(sample, arguments)}
        wild = {
            name: wild_network(t, like) if name == "net" else t for name, t in arguments.items()
        }
        for given in (arguments, wild):
            first, second = sample.call(given, "cpp"), sample.call(given, "cpp")
            assert all(same(a, b) for a, b in zip(first, second, strict=True))


def wild_network(net, like):
    weights, biases = ([like(t) for t in tensors] for tensors in (net.weights, net.biases))
    return net._replace(weights=weights, biases=biases)
