"""Contract 4 in C++: a row's bits depend on neither the batch, its cut, the threads nor the run."""

import itertools

import pytest
import torch
from samples import SAMPLES, SHAPES, part, same

from vaefast import ops
from vaefast.bench.cases import posterior
from vaefast.ops._pack import pack
from vaefast.runtime.backends import has

CUTS = (0, 1, 3, 8, 20)  # and the end
pytestmark = pytest.mark.usefixtures("cpp_and_threads")
DTYPES = {"argvalues": [torch.float32, torch.float64], "ids": ["float32", "float64"]}
# matrix products of the library make up the multiplier form
BITS = [one for one in SAMPLES if has(one.op, "cpp") and one.label != "smaller"]
NETWORKS = [sample for sample in BITS if "net" in sample.op or "decode" in sample.op]


def of_samples(samples):
    return pytest.mark.parametrize("sample", samples, ids=lambda s: f"{s.op} {s.label}".strip())


def made(sample, dtype, name):
    """The arguments, where the kernels take their network."""
    arguments = sample.make(dtype, SHAPES[name])
    if not (support := sample.supports(arguments, "cpp")):
        pytest.skip(support.reason)
    return arguments


@pytest.mark.parametrize("dtype", **DTYPES)
@pytest.mark.parametrize("name", SHAPES)
@of_samples(BITS)
def test_cuts_threads_and_runs(sample, name, dtype):
    B, arguments = SHAPES[name].B, made(sample, dtype, name)
    torch.set_num_threads(2)
    whole = sample.call(arguments, "cpp")
    for threads in (2, 1, 3):
        torch.set_num_threads(threads)
        again = sample.call(arguments, "cpp")
        assert all(same(a, b) for a, b in zip(whole, again)), f"{threads} threads"
        if threads == 2:
            continue  # cuts meet one thread, and more threads than some have rows
        for rows in itertools.starmap(slice, itertools.pairwise((*CUTS, B))):
            found = sample.call(sample.cut(arguments, B, rows), "cpp")
            pairs = zip(found, whole)
            assert all(same(a, part(b, B, rows)) for a, b in pairs), f"{threads} threads, {rows}"


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("dtype", **DTYPES)
@pytest.mark.parametrize("name", SHAPES)
@of_samples(NETWORKS)
def test_a_pack_changes_no_bit(sample, name, dtype, backward):
    B, arguments = SHAPES[name].B, made(sample, dtype, name)
    packed = {**arguments, "net": pack(arguments["net"], backward=backward)}
    for rows in (slice(0, B), slice(0, 3)):
        pairs = [sample.call(sample.cut(a, B, rows), "cpp") for a in (arguments, packed)]
        assert all(same(a, b) for a, b in zip(*pairs, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", ["one copy of the weights", "odd widths"])
def test_a_row_alone_with_its_own_scalars(name, dtype):
    B, C = 5, 3
    widths, activations = SHAPES[name][2:4]
    z, x, net = posterior(B, C, widths=widths, activations=activations, dtype=dtype)
    like = {"likelihood": "bernoulli"}
    step, index = torch.linspace(1e-3, 2e-2, B, dtype=dtype), torch.tensor([7, 3, 1 << 40, 0, 9])
    U, grad = ops.net_potential(z, x, net, **like)
    options = {**like, "leapfrog": 2, "jitter": 0.2, "steps": 3, "thin": 1, "seed": 1}
    whole = ops.net_chain(z, U, grad, x, net, step=step, index=index, **options)
    moved = ops.net_trajectory(
        z, z.flip(0), grad, x, net, step=step.repeat_interleave(C), leapfrog=2, **like
    )
    for b in range(B):
        own = slice(b * C, (b + 1) * C)
        state = z[own], U[own], grad[own], x[b : b + 1], net
        alone = ops.net_chain(*state, step=step[b].item(), index=index[b : b + 1], **options)
        assert all(same(one, many[own]) for one, many in zip(alone, whole))
    for n in range(B * C):
        row, b = slice(n, n + 1), n // C
        state = z[row], z.flip(0)[row], grad[row], x[b : b + 1], net
        alone = ops.net_trajectory(*state, step=step[b].item(), leapfrog=2, **like)
        assert all(same(one, many[row]) for one, many in zip(alone, moved))


@pytest.mark.parametrize("widths", [(0, 512, 512, 784), (3, 0, 700, 900)])
def test_layers_without_inputs(widths):
    case = posterior(6, 1, widths=widths, activations="tanh,tanh,identity", dtype=torch.float32)
    whole = ops.net_potential(*case, likelihood="bernoulli")
    for n in (1, 3):
        first = ops.net_potential(case.z[:n], case.x[:n], case.net, likelihood="bernoulli")
        assert all(same(a, b[:n]) for a, b in zip(first, whole))
    expected = ops.net_potential(*case, likelihood="bernoulli", backend="reference")[0]
    torch.testing.assert_close(whole[0], expected, rtol=1e-6, atol=1e-4)
