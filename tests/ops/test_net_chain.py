"""net_chain: it samples the posterior, and its numbers do not depend on how it was cut up."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import vaefast as vf
from vaefast import philox
from vaefast.bench.cases import network, posterior
from vaefast.functional.hmc import Draws
from vaefast.ops import net_chain, net_potential, net_trajectory
from vaefast.philox import Use
from vaefast.types import Network


def run(case, likelihood="bernoulli", *, steps=6, step=0.15, leapfrog=4, **options):
    U, grad = net_potential(case.z, case.x, case.net, likelihood=likelihood, backend="reference")
    return net_chain(
        case.z, U, grad, case.x, case.net, likelihood=likelihood, step=step, leapfrog=leapfrog,
        steps=steps, **options,
    )  # fmt: skip


def masses(case):
    generator = torch.Generator().manual_seed(5)
    shape = len(case.x), case.z.shape[1]
    return 0.5 + torch.rand(shape, generator=generator, dtype=torch.float64)


def by_hand(case, steps, step, leapfrog, jitter, inv_mass, seed, index):
    """The algorithm for one row at a time, by autograd, with the numbers of contract 5."""
    chains = len(case.z) // len(case.x)
    ends, accepted = [], []
    for n, z in enumerate(case.z):
        x, inverse = case.x[n // chains][None], inv_mass[n // chains]
        key = {"seed": seed, "index": index[n // chains][None]}

        def energy(z, x=x):
            like = {"likelihood": "bernoulli", "backend": "reference"}
            return net_potential(z[None], x, case.net, **like)[0]

        def force(z, energy=energy):
            z = z.detach().requires_grad_()
            return torch.autograd.grad(energy(z), z)[0]

        count = 0
        for t in range(steps):
            lane = {"step": t, "lane": n % chains}
            p = philox.normal(len(z), **key, **lane, use=Use.MOMENTUM)[0] / inverse.sqrt()
            w = 2 * philox.uniform(1, **key, step=t, use=Use.JITTER).item() - 1
            eps, start, old = step * (1 + jitter * w), energy(z) + 0.5 * (inverse * p * p).sum(), z
            for _ in range(leapfrog):
                p = p - 0.5 * eps * force(z)
                z = z + eps * inverse * p
                p = p - 0.5 * eps * force(z)
            error = energy(z) + 0.5 * (inverse * p * p).sum() - start
            u = philox.uniform(1, **key, **lane, use=Use.ACCEPT).item()
            accept = math.log(u) < -error.item()
            z, count = (z, count + 1) if accept else (old, count)
        ends.append(z)
        accepted.append(count)
    return torch.stack(ends), accepted


def roots(case):
    """S of no particular form."""
    generator, d = torch.Generator().manual_seed(6), case.z.shape[1]
    drawn = torch.randn(len(case.x), d, d, generator=generator, dtype=torch.float64)
    return torch.eye(d, dtype=torch.float64) + 0.3 * drawn


def test_a_diagonal_root_is_the_diagonal_mass(backend):
    case = posterior(3, 2)
    inv_mass = masses(case)
    options = {"steps": 7, "step": 0.5, "jitter": 0.3, "seed": 21, "thin": 2, "backend": backend}
    diagonal = run(case, inv_mass=inv_mass, **options)
    dense = run(case, root=torch.diag_embed(inv_mass.sqrt()), **options)
    close = 1e-5 if backend == "triton" else 1e-8  # whose normals are float32
    torch.testing.assert_close(tuple(dense), tuple(diagonal), rtol=close, atol=close)
    assert 0 < diagonal.accepted.sum() < 42


def test_a_dense_chain_is_its_trajectories(backend):
    """Transition by transition, with the momenta of unit mass."""
    case, L, T = posterior(2, 2), 3, 5
    S, like = roots(case), {"likelihood": "bernoulli", "backend": backend}
    found = run(case, root=S, steps=T, step=0.4, leapfrog=L, seed=3, thin=1, backend=backend)
    z = case.z
    U, grad = net_potential(z, case.x, case.net, **like)
    for t in range(T):
        noise = Draws(torch.arange(2), 3).noise(z, t)
        q = noise.momentum
        end = net_trajectory(z, q, grad, case.x, case.net, step=0.4, leapfrog=L, root=S, **like)
        error = end[3] + 0.5 * end[1].square().sum(1) - U - 0.5 * q.square().sum(1)
        moved = noise.acceptance < (-error).exp()
        z, grad = (torch.where(moved[:, None], a, b) for a, b in ((end[0], z), (end[2], grad)))
        U = torch.where(moved, end[3], U)
        close = 1e-5 if backend == "triton" else 1e-9
        torch.testing.assert_close(found.draws[:, t], z, rtol=close, atol=close)
        torch.testing.assert_close(found.energies[:, t], U, rtol=close, atol=close)


def test_chain_is_the_algorithm_written_out(backend):
    case, inv_mass = posterior(2, 2), masses(posterior(2, 2))
    index = torch.tensor([4, 1 << 35])
    options = {"steps": 7, "step": 0.7, "leapfrog": 2, "jitter": 0.3, "seed": 21}
    result = run(case, inv_mass=inv_mass, index=index, backend=backend, **options)
    z, accepted = by_hand(case, inv_mass=inv_mass, index=index, **options)
    close = 1e-5 if backend == "triton" else 1e-8  # whose normals are float32
    torch.testing.assert_close(result.z, z, rtol=close, atol=close)
    assert result.accepted.tolist() == accepted
    assert 0 < sum(accepted) < 28  # the step is large enough to see both


@pytest.mark.slow_interpreted
@pytest.mark.parametrize("massive", [False, True])
def test_linear_gaussian_posterior(backend, massive):
    """x = Az + b + sη has p(z|x) = N(m, V), V = (I + AᵀA/s²)⁻¹, m = V Aᵀ(x − b)/s²."""
    B, C, d, s = 2, 250, 2, 0.8
    net = network((d, 4), "identity", seed=4)
    case = posterior(B, C, widths=(d, 4), activations="identity", seed=4)
    A, b = net.weights[0], net.biases[0]
    V = torch.linalg.inv(torch.eye(d, dtype=torch.float64) + A.T @ A / s**2)
    m = (case.x - b) @ A @ V / s**2  # [B, d]
    like = {"likelihood": "gaussian", "likelihood_params": [s]}
    U, grad = net_potential(*case, **like)
    result = net_chain(
        case.z, U, grad, case.x, net, **like, step=0.2, leapfrog=4, jitter=0.3, steps=150,
        thin=1, inv_mass=masses(case) if massive else None, backend=backend,
    )  # fmt: skip
    draws = result.draws[:, 30:].view(B, C, 120, d) - m[:, None, None]
    for moment, truth in ((draws, torch.zeros(d)), (_outer(draws), V.flatten())):
        of_chains = moment.mean(2)  # [B, C, ...]: chains are independent, so this is their error
        error = of_chains.std(1) / math.sqrt(C)
        assert ((of_chains.mean(1) - truth).abs() < 4.5 * error).all()
        assert (error < 0.03 * V.diagonal().max().sqrt()).all()  # and the test has teeth
    assert result.accepted.double().mean() > 0.7 * 150
    assert not result.divergent.any()


def _outer(draws):
    return (draws.unsqueeze(-1) * draws.unsqueeze(-2)).flatten(-2)


@pytest.mark.parametrize("cut", [4, 5])  # behind one that is kept, and between two
def test_two_calls_are_one(backend, cut):
    case = posterior(3, 2)
    options = {"jitter": 0.2, "seed": 3, "thin": 2, "inv_mass": masses(case), "backend": backend}
    whole = run(case, steps=11, **options)
    first = run(case, steps=cut, **options)
    second = net_chain(
        first.z, first.U, first.grad, case.x, case.net, likelihood="bernoulli", step=0.15,
        leapfrog=4, steps=11 - cut, first_step=cut, **options,
    )  # fmt: skip
    for name in ("z", "U", "grad"):
        assert torch.equal(getattr(second, name), getattr(whole, name))
    for name in ("accepted", "divergent"):
        assert torch.equal(getattr(first, name) + getattr(second, name), getattr(whole, name))
    for name in ("draws", "energies"):
        joined = torch.cat((getattr(first, name), getattr(second, name)), dim=1)
        assert torch.equal(joined, getattr(whole, name))


@pytest.mark.parametrize("first", [2**31 - 2, 2**32 - 4])
def test_transitions_are_numbered_beyond_31_bits(first, backend):
    case = posterior(2, 3)
    options = {"steps": 4, "first_step": first, "thin": 1, "jitter": 0.2}
    chain = run(case, backend=backend, **options)
    reference = run(case, backend="reference", **options)
    assert torch.equal(chain.accepted, reference.accepted)
    assert chain.accepted.sum() > 0
    torch.testing.assert_close(chain.draws, reference.draws, rtol=1e-4, atol=1e-5)


def test_rows_follow_their_index_and_not_the_batch(backend):
    case = posterior(7, 3)
    index = torch.tensor([5, 0, 12, 3, 1 << 40, 8, 2])
    whole = run(case, jitter=0.2, index=index, thin=3, backend=backend)
    order = torch.tensor([6, 2, 4])
    rows = (order[:, None] * 3 + torch.arange(3)).flatten()
    picked = case._replace(z=case.z[rows], x=case.x[order])
    part = run(picked, jitter=0.2, index=index[order], thin=3, backend=backend)
    for result, expected in zip(part, whole):
        torch.testing.assert_close(result, expected[rows], rtol=1e-10, atol=1e-10)
    other = run(picked, jitter=0.2, thin=3, backend=backend)
    assert not torch.isclose(other.z, part.z).all(dim=1).any()
    vf.set_memory(1)
    by_one = run(case, jitter=0.2, index=index, thin=3, backend=backend)
    torch.testing.assert_close(tuple(by_one), tuple(whole), rtol=1e-10, atol=1e-10)


class Dispatched(TorchDispatchMode):
    """The names of vaefast's ops that are called inside the ``with`` block."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "vaefast":
            self.names.append(function.name())
        return function(*args, **(kwargs or {}))


def test_all_transitions_are_one_registered_operator(backend):
    case = posterior(2, 2)
    start = net_potential(*case, likelihood="bernoulli")
    with Dispatched() as calls:
        net_chain(
            case.z, *start, case.x, case.net, likelihood="bernoulli", step=0.1, leapfrog=3,
            steps=25, backend=backend,
        )  # fmt: skip
    assert calls.names == ["vaefast::net_chain"]


def test_chains_of_one_input_differ(backend):
    case = posterior(1, 4)
    same = case._replace(z=case.z[:1].expand(4, -1).clone())
    assert len(run(same, backend=backend).z.unique(dim=0)) == 4


def test_draws_are_thinned_and_their_energies_are_those_of_the_potential(backend):
    case = posterior(2, 2)
    every = run(case, steps=10, thin=1, backend=backend)
    assert every.draws.shape == (4, 10, 3)
    assert torch.equal(every.draws[:, -1], every.z)
    assert torch.equal(run(case, steps=10, thin=3, backend=backend).draws, every.draws[:, 2::3])
    none = run(case, steps=10, backend=backend)
    assert none.draws.shape == (4, 0, 3)
    assert none.energies.shape == (4, 0)
    for i in range(10):
        U, _ = net_potential(every.draws[:, i], case.x, case.net, likelihood="bernoulli")
        torch.testing.assert_close(every.energies[:, i], U)


def test_accepted_counts_the_moves(backend):
    case = posterior(3, 2)
    result = run(case, steps=40, step=0.9, thin=1, backend=backend)
    path = torch.cat((case.z[:, None], result.draws), dim=1)
    moves = (path[:, 1:] != path[:, :-1]).any(dim=2).sum(1)
    assert torch.equal(result.accepted, moves)
    assert (moves < 40).any()


def test_energy_and_gradient_stay_with_the_position(backend):
    case = posterior(3, 2)
    result = run(case, steps=25, step=0.9, backend=backend)
    U, grad = net_potential(result.z, case.x, case.net, likelihood="bernoulli")
    torch.testing.assert_close(result.U, U)
    torch.testing.assert_close(result.grad, grad)


def test_divergent_trajectories_are_counted_and_rejected(backend):
    case = posterior(2, 2, activations="relu,relu,identity")
    steps = torch.tensor([1e6, 0.01], dtype=torch.float64)
    result = run(case, "gaussian", step=steps, steps=5, backend=backend)
    assert result.divergent.tolist() == [5, 5, 0, 0]
    assert torch.equal(result.z[:2], case.z[:2])
    assert (result.accepted[2:] > 0).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", ["z", "grad", "U", "x", "step", "inv_mass", "root"])
def test_bad_rows_never_move_and_the_others_are_untouched(backend, place, bad):
    case = posterior(3, 2)
    U, grad = net_potential(*case, likelihood="bernoulli")
    tensors = {"z": case.z, "U": U, "grad": grad, "x": case.x}
    tensors["step"] = torch.full((3,), 0.1, dtype=torch.float64)
    tensors |= {"root": roots(case)} if place == "root" else {"inv_mass": masses(case)}
    options = {"net": case.net, "likelihood": "bernoulli", "leapfrog": 3, "steps": 4, "thin": 2}
    clean = net_chain(**tensors, **options, backend=backend)
    tensors[place][1] = bad
    result = net_chain(**tensors, **options, backend=backend)
    hit = [1] if place in ("z", "grad", "U") else [2, 3]
    others = [n for n in range(6) if n not in hit]
    assert result.U[hit].isnan().all()
    assert result.energies[hit].isnan().all()
    assert (result.divergent[hit] == 4).all()
    assert (result.accepted[hit] == 0).all()
    torch.testing.assert_close(result.z[hit], tensors["z"][hit], rtol=0, atol=0, equal_nan=True)
    for after, before in zip(result, clean):
        torch.testing.assert_close(after[others], before[others])


def test_float32(backend):
    case = posterior(3, 2)
    net = Network([w.float() for w in case.net.weights], [b.float() for b in case.net.biases],
              case.net.layers)  # fmt: skip
    narrow = run(case._replace(z=case.z.float(), x=case.x.float(), net=net), backend=backend)
    assert narrow.z.dtype == narrow.draws.dtype == torch.float32
    assert narrow.U.dtype == narrow.energies.dtype == torch.float64
    torch.testing.assert_close(narrow.z.double(), run(case).z, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", [0, -1, 1 << 63, (1 << 64) - 1])
def test_any_64_bit_seed(backend, seed):
    case = posterior(1, 1)
    p = philox.normal(3, seed=seed, index=torch.zeros(1, dtype=torch.int64), use=Use.MOMENTUM)
    tiny = run(case, seed=seed, steps=1, step=1e-7, leapfrog=1, backend=backend)
    torch.testing.assert_close((tiny.z - case.z) / 1e-7, p, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("B", "steps"), [(0, 5), (2, 0)])
def test_nothing_to_do(backend, B, steps):
    case = posterior(B, 2)
    result = run(case, steps=steps, thin=1, backend=backend)
    assert torch.equal(result.z, case.z)
    assert result.draws.shape == (2 * B, steps, 3)
    assert B == 0 or result.z.data_ptr() != case.z.data_ptr()


def test_inputs_that_require_grad():
    case = posterior(2, 1)
    case.net.weights[0].requires_grad_()
    with pytest.raises(RuntimeError, match="net_chain is not differentiable; use backend="):
        run(case)


def test_reference_chain_is_differentiable_end_to_end():
    case = posterior(1, 2, widths=(2, 4, 3), activations="tanh,identity")

    def end(z, x):
        like = {"likelihood": "bernoulli", "backend": "reference"}
        U, grad = net_potential(z, x, case.net, **like)
        result = net_chain(z, U, grad, x, case.net, **like, step=0.1, leapfrog=2, steps=3, thin=2)
        assert (result.accepted == 3).all()  # a rejection is a constant path, not a test
        return result.z, result.U, result.draws

    assert torch.autograd.gradcheck(end, (case.z.requires_grad_(), case.x.requires_grad_()))


@pytest.mark.parametrize(("steps", "requires_grad"), [(0, False), (3, True)])
def test_registered_op_passes_opcheck(backend, steps, requires_grad):
    case = posterior()
    U, grad = net_potential(*case, likelihood="bernoulli")
    case.x.requires_grad_(requires_grad)
    step, index = torch.full((3,), 0.1, dtype=torch.float64), torch.arange(3)
    state = case.z, U, grad, case.x, *case.net, "bernoulli", [], step, masses(case), None, index
    torch.library.opcheck(
        torch.ops.vaefast.net_chain.default, (*state, 2, 0.1, 7, 0, steps, 2, "ieee", 0, backend)
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"U": torch.zeros(6)}, TypeError, "U must be float64, got float32; pass net_potential's"),
        ({"U": torch.zeros(5).double()}, ValueError, r"U must be \[N\] = \[6\] like z's rows"),
        ({"jitter": 1.0}, ValueError, r"jitter must lie in \[0, 1\), got 1.0"),
        ({"steps": -1}, ValueError, "steps must be at least 0, got -1"),
        ({"first_step": 2**32}, ValueError, r"first_step \+ steps must not exceed 2\*\*32"),
        ({"thin": -1}, ValueError, "thin must be at least 0, got -1"),
        ({"seed": 0.5}, TypeError, "seed must be a whole number, got float"),
        ({"index": torch.arange(2)}, ValueError, r"index must be \[B\] = \[3\], got \[2\]"),
        ({"step": torch.ones(6)}, ValueError, r"step must be a float or \[B\] = \[3\], got \[6\]"),
    ],
)
def test_errors_say_what_came_and_what_to_do(change, error, message):
    case = posterior()
    U, grad = net_potential(*case, likelihood="bernoulli")
    arguments = {**case._asdict(), "U": U, "grad": grad, "step": 0.1, "leapfrog": 2, "steps": 2}
    with pytest.raises(error, match=message):
        net_chain(**{**arguments, "likelihood": "bernoulli", **change})


def test_too_many_chains_are_refused():
    with pytest.raises(ValueError, match="z must have at most 4096 chains per input, got 4097"):
        run(posterior(1, 4097, widths=(1, 1), activations="identity"))
