"""Contract 4 in C++: a row's bits depend on neither the batch, its cut, the threads nor the run."""

from collections.abc import Callable

import pytest
import torch

import vaefast as vf
from vaefast import ops
from vaefast.bench.cases import images, network, posterior
from vaefast.ops._pack import pack

NETWORKS = {
    "one copy of the weights": ((32, 512, 512, 784), "tanh,tanh,identity"),
    "odd widths": ((17, 101, 334, 300), "relu,maxmin,identity"),
    "one layer": ((5, 7), "sigmoid"),
    "deep sums": ((700, 9), "identity"),
}
ROWS = 41
SLICES = [slice(0, 1), slice(1, 3), slice(3, 8), slice(8, 20), slice(20, 41)]


def potential(case, rows):
    z, x, net = case
    return ops.net_potential(z[rows], x[rows], net, likelihood="bernoulli")


def trajectory(case, rows):
    z, x, net = case
    step = torch.linspace(1e-4, 1e-2, ROWS, dtype=z.dtype)
    mass = 1 + z.square()
    return ops.net_trajectory(
        z[rows],
        z.flip(0)[rows],
        z.sin()[rows],
        x[rows],
        net,
        likelihood="gaussian",
        likelihood_params=[0.3],
        step=step[rows],
        inv_mass=mass[rows],
        leapfrog=3,
    )


def chain(case, rows):
    z, x, net = case
    step = torch.linspace(1e-3, 3e-2, ROWS, dtype=z.dtype)
    U, grad = potential(case, rows)
    return ops.net_chain(
        z[rows],
        U,
        grad,
        x[rows],
        net,
        likelihood="bernoulli",
        step=step[rows],
        leapfrog=2,
        jitter=0.3,
        seed=3,
        index=torch.arange(ROWS)[rows] + 1000,
        steps=3,
        thin=1,
    )


def distance(case, rows):
    z, _, net = case
    std, centre = 0.1 + z.abs(), ops.net_forward(z, net)
    r = (ops.net_forward(z + 0.2 * std, net) - centre).norm(dim=1)
    index = torch.arange(ROWS)[rows]
    own = z[rows], std[rows], centre[rows], r[rows]
    return (ops.decode_distance(*own, net, index=index, samples=30),)


def likelihood(case, rows):
    z, x, net = case
    out = ops.net_forward(z, net)
    return ops.log_likelihood(out[rows], x[rows], likelihood="continuous_bernoulli")


def step(case, rows):
    z, p = case.z[rows].clone(), case.z.flip(0)[rows].clone()
    ops.leapfrog_step(z, p, case.z.sin()[rows], torch.linspace(0, 1, ROWS).to(z)[rows])
    return z, p


def tangents(case, rows):
    v = images(3, case.z.shape[1], dtype=case.z.dtype, seed=1).grad
    return ops.net_jvp(case.z[rows], v, case.net, full=True)


def cotangents(case, rows):
    u = images(ROWS * 2, case.x.shape[1], dtype=case.z.dtype, seed=2).grad
    return ops.net_vjp(case.z[rows], u.unflatten(0, (ROWS, 2))[rows], case.net, full=True)


def gram(case, rows):
    return (ops.net_jacobian_gram(case.x[rows], encoder(case)),)


def encoder(case):
    """A network from the images' side: wide in, few out."""
    D = case.x.shape[1]
    return network((D, max(D // 3, 2), 6), "tanh,identity", dtype=case.x.dtype)


def update(case, rows):
    x_adv, grad, x = (t[rows] for t in images(ROWS, case.x.shape[1], dtype=case.x.dtype))
    return (ops.pgd_step(x_adv, grad, x, alpha=0.1, eps=0.2, norm="l2"),)


CALLS: dict[str, Callable] = {
    "net_forward": lambda case, rows: (ops.net_forward(case.z[rows], case.net),),
    "net_potential": potential,
    "net_trajectory": trajectory,
    "net_chain": chain,
    "decode_distance": distance,
    "log_likelihood": likelihood,
    "leapfrog_step": step,
    "net_jvp": tangents,
    "net_vjp": cotangents,
    "net_jacobian_gram": gram,
    "pgd_step": update,
}


@pytest.fixture(autouse=True)
def _cpp_and_threads():
    if not (support := vf.supports("net_forward", "cpp")):
        pytest.skip(support.reason)
    before = torch.get_num_threads()
    with vf.use_backend("cpp"):
        yield
    torch.set_num_threads(before)


def test_every_op_is_here():
    assert set(CALLS) == set(ops.__all__) - {"supports"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("op", CALLS)
def test_cuts_threads_and_runs(op, name, dtype):
    widths, activations = NETWORKS[name]
    case = posterior(ROWS, 1, widths=widths, activations=activations, dtype=dtype)
    run = CALLS[op]
    torch.set_num_threads(2)
    whole = run(case, slice(None))
    for threads in (2, 1, 3):
        torch.set_num_threads(threads)
        again = run(case, slice(None))
        assert all(same(a, b) for a, b in zip(whole, again)), f"{threads} threads"
        for rows in SLICES:
            part = run(case, rows)
            assert all(same(a, b[rows]) for a, b in zip(part, whole)), f"{threads} threads, {rows}"


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("op", [op for op in CALLS if "net" in op or "decode" in op])
def test_a_pack_changes_no_bit(op, name, dtype, backward, monkeypatch):
    widths, activations = NETWORKS[name]
    case = posterior(ROWS, 1, widths=widths, activations=activations, dtype=dtype)
    network = encoder(case)
    expected = [CALLS[op](case, rows) for rows in (slice(None), slice(0, 3))]
    monkeypatch.setitem(globals(), "encoder", lambda case: pack(network, backward=backward))
    ready = case._replace(net=pack(case.net, backward=backward))
    found = [CALLS[op](ready, rows) for rows in (slice(None), slice(0, 3))]
    for results, others in zip(found, expected):
        assert all(same(a, b) for a, b in zip(results, others))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", ["one copy of the weights", "odd widths"])
def test_a_row_alone_with_its_own_scalars(name, dtype):
    B, C = 5, 3
    widths, activations = NETWORKS[name]
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
    whole = potential(case, slice(None))
    for n in (1, 3):
        assert all(same(a, b[:n]) for a, b in zip(potential(case, slice(0, n)), whole))
    expected = ops.net_potential(*case, likelihood="bernoulli", backend="reference")[0]
    torch.testing.assert_close(whole[0], expected, rtol=1e-6, atol=1e-4)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal bits; any NaN is like any other."""
    if not a.is_floating_point():
        return torch.equal(a, b)
    bits = torch.int32 if a.dtype == torch.float32 else torch.int64
    a, b = (torch.where(t.isnan(), torch.nan, t).contiguous().view(bits) for t in (a, b))
    return torch.equal(a, b)
