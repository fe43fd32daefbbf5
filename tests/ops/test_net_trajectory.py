"""net_trajectory: leapfrog's reversibility, volume, order, and exactly L gradients."""

import math

import numpy as np
import pytest
import torch

import vaefast as vf
from vaefast.bench.cases import posterior
from vaefast.functional.leapfrog import leapfrogs
from vaefast.ops import leapfrog_step, net_potential, net_trajectory
from vaefast.types import LIKELIHOODS


def start(case, seed=3):
    generator = torch.Generator().manual_seed(seed)
    p = torch.randn(case.z.shape, generator=generator, dtype=torch.float64).to(case.z.dtype)
    _, grad = net_potential(*case, likelihood="bernoulli", backend="reference")
    return p, grad


def run(case, p, grad, leapfrog=7, step=0.05, **options):
    return net_trajectory(
        case.z, p, grad, case.x, case.net, likelihood="bernoulli", step=step, leapfrog=leapfrog,
        **options,
    )  # fmt: skip


def masses(case, seed=5):
    generator = torch.Generator().manual_seed(seed)
    shape = len(case.x), case.z.shape[1]
    return 0.5 + torch.rand(shape, generator=generator, dtype=torch.float64)


def roots(case, seed=6):
    """S of no particular form."""
    generator, d = torch.Generator().manual_seed(seed), case.z.shape[1]
    drawn = torch.randn(len(case.x), d, d, generator=generator, dtype=torch.float64)
    return torch.eye(d, dtype=torch.float64) + 0.3 * drawn


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("massive", [False, True])
def test_value_by_single_steps(backend, massive, likelihood):
    case = posterior(3, 2)
    inv_mass = masses(case) if massive else None
    steps = torch.linspace(0.01, 0.1, 6, dtype=torch.float64)
    _, grad = net_potential(*case, likelihood=likelihood)
    z, p = case.z.clone(), start(case)[0]
    result = net_trajectory(
        z, p, grad, case.x, case.net, likelihood=likelihood, step=steps, inv_mass=inv_mass,
        leapfrog=4, backend=backend,
    )  # fmt: skip
    assert torch.equal(z, case.z)  # the inputs are not touched
    for _ in range(4):
        leapfrog_step(z, p, grad, steps, inv_mass=inv_mass, kick=0.5)
        U, grad = net_potential(z, case.x, case.net, likelihood=likelihood)
        leapfrog_step(z, p, grad, steps, kick=0.5, drift=False)
    torch.testing.assert_close(result, (z, p, grad, U), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("widths", [(3, 6, 8), (37, 21, 30)])
def test_a_dense_mass_is_unit_mass_in_other_coordinates(backend, widths):
    """Leapfrogs of u = S⁻¹z under the decoder u ↦ net(S u), written out."""
    case = posterior(3, 2, widths=widths, activations="tanh,identity")
    S, steps = roots(case), torch.linspace(0.01, 0.1, 6, dtype=torch.float64)
    q, grad = start(case)
    result = net_trajectory(
        case.z, q, grad, case.x, case.net, likelihood="bernoulli", step=steps, root=S,
        leapfrog=4, backend=backend,
    )  # fmt: skip
    for n in range(6):
        own, x = S[n // 2], case.x[n // 2 : n // 2 + 1]

        def potential(u, own=own, x=x):
            like = {"likelihood": "bernoulli", "backend": "reference"}
            U, grad = net_potential((own @ u)[None], x, case.net, **like)
            return U, own.mT @ grad[0]

        u, p = torch.linalg.solve(own, case.z[n]), q[n]
        _, slope = potential(u)
        for _ in range(4):
            p = p - 0.5 * steps[n] * slope
            u = u + steps[n] * p
            U, slope = potential(u)
            p = p - 0.5 * steps[n] * slope
        found = [t[n] for t in result]
        expected = own @ u, p, torch.linalg.solve(own.mT, slope), U[0]
        torch.testing.assert_close(found, list(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dense", [False, True])
def test_reversed_momentum_leads_back(backend, dense):
    case = posterior(3, 2)
    p, grad = start(case)
    mass = {"root": roots(case)} if dense else {"inv_mass": masses(case)}
    there = run(case, p, grad, 25, **mass, backend=backend)
    back = run(case._replace(z=there[0]), -there[1], there[2], 25, **mass, backend=backend)
    torch.testing.assert_close(back[0], case.z, rtol=0, atol=1e-11)
    torch.testing.assert_close(-back[1], p, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dense", [False, True])
def test_volume_is_preserved(dense):
    """The Jacobian determinant of (z, p) ↦ (z', p') is 1."""
    case = posterior(1, 1, widths=(3, 6, 8), activations="tanh,identity")
    p, _ = start(case)
    mass = {"root": roots(case)} if dense else {"inv_mass": masses(case)}

    def flow(state):
        z, p = state.view(2, 1, 3)
        _, grad = net_potential(z, case.x, case.net, likelihood="bernoulli", backend="reference")
        end = run(case._replace(z=z), p, grad, 5, 0.2, **mass, backend="reference")
        return torch.cat((end[0].flatten(), end[1].flatten()))

    jacobian = torch.autograd.functional.jacobian(flow, torch.cat((case.z, p)).flatten())
    assert torch.linalg.det(jacobian).item() == pytest.approx(1.0, abs=1e-10)


def test_energy_error_is_of_second_order(backend):
    case = posterior(4, 2)
    p, grad = start(case)
    U, _ = net_potential(*case, likelihood="bernoulli")
    before = U + 0.5 * p.square().sum(1)
    counts = np.array([8, 16, 32, 64])
    errors = []
    for L in counts:
        _, p_end, _, U_end = run(case, p, grad, int(L), 0.4 / L, backend=backend)
        errors.append((U_end + 0.5 * p_end.square().sum(1) - before).abs().mean().item())
    slope = np.polyfit(np.log(1 / counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("L", [1, 2, 9])
def test_exactly_one_gradient_per_leapfrog(L):
    calls = []

    def gradient(z):
        calls.append("gradient")
        return z

    def energy_and_gradient(z):
        calls.append("energy")
        return 0.5 * z.double().square().sum(1), z

    z, p = torch.randn(2, 3, 2)
    leapfrogs(
        gradient,
        energy_and_gradient,
        z,
        p,
        z,
        step=torch.full((3,), 0.1),
        inv_mass=None,
        leapfrog=L,
    )
    assert calls == ["gradient"] * (L - 1) + ["energy"]


def test_results_carry_over_to_the_next_trajectory(backend):
    """3 + 4 leapfrogs, with gradient and momentum handed over, are 7."""
    case = posterior(2, 2)
    p, grad = start(case)
    z, p_mid, grad_mid, _ = run(case, p, grad, 3, backend=backend)
    torch.testing.assert_close(
        run(case._replace(z=z), p_mid, grad_mid, 4, backend=backend),
        run(case, p, grad, 7, backend=backend),
        rtol=1e-11,
        atol=1e-12,
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", ["z", "p", "grad", "x", "step", "inv_mass", "root"])
def test_bad_rows_are_nan_and_the_others_are_untouched(backend, place, bad):
    case = posterior(3, 2)
    p, grad = start(case)
    tensors = {"z": case.z, "p": p, "grad": grad, "x": case.x}
    tensors["step"] = torch.full((6,), 0.05, dtype=torch.float64)
    tensors |= {"root": roots(case)} if place == "root" else {"inv_mass": masses(case)}
    options = {"net": case.net, "likelihood": "gaussian", "leapfrog": 3, "backend": backend}
    clean = net_trajectory(**tensors, **options)
    per_input = place in ("x", "inv_mass", "root")
    tensors[place][1] = bad
    hit = [2, 3] if per_input else [1]
    others = [n for n in range(6) if n not in hit]
    for result, before in zip(net_trajectory(**tensors, **options), clean):
        assert result[hit].isnan().all()
        torch.testing.assert_close(result[others], before[others])


def test_any_cut_of_the_batch_gives_the_same_rows(backend):
    case = posterior(7, 3)
    p, grad = start(case)
    whole = run(case, p, grad, backend=backend)
    tail = run(case._replace(z=case.z[12:], x=case.x[4:]), p[12:], grad[12:], backend=backend)
    torch.testing.assert_close(tail, tuple(t[12:] for t in whole))
    vf.set_memory(1)
    torch.testing.assert_close(run(case, p, grad, backend=backend), whole)


def test_inputs_that_require_grad():
    case = posterior(2, 1)
    p, grad = start(case)
    p.requires_grad_()
    with pytest.raises(RuntimeError, match="net_trajectory is not differentiable; use backend="):
        run(case, p, grad)
    with torch.no_grad():
        run(case, p, grad)
    small = posterior(1, 1, widths=(2, 4, 3), activations="tanh,identity")
    p, grad = start(small)
    assert torch.autograd.gradcheck(
        lambda p: run(small, p, grad, 3, backend="reference"), p.requires_grad_()
    )


@pytest.mark.parametrize(
    ("mass", "requires_grad"), [("unit", False), ("diagonal", True), ("dense", False)]
)
def test_registered_op_passes_opcheck(backend, mass, requires_grad):
    case = posterior()
    p, grad = start(case)
    case.x.requires_grad_(requires_grad)
    step = torch.full((6,), 0.1, dtype=torch.float64)
    of_mass = masses(case) if mass == "diagonal" else None, roots(case) if mass == "dense" else None
    state = case.z, p, grad, case.x, *case.net, "bernoulli", [], step, *of_mass
    torch.library.opcheck(torch.ops.vaefast.net_trajectory.default, (*state, 3, "ieee", 0, backend))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"p": torch.zeros(6, 2).double()},
            ValueError,
            r"p must be \[6, 3\] beside z, got \[6, 2\]",
        ),
        ({"leapfrog": 0}, ValueError, "leapfrog must be at least 1, got 0"),
        ({"leapfrog": 2.0}, TypeError, "leapfrog must be a whole number, got float"),
        ({"step": torch.ones(3)}, ValueError, r"step must be a float or .* = \[6\], got \[3\]"),
        ({"inv_mass": torch.ones(2, 3).double()}, ValueError, "inv_mass must have 3 rows like x"),
        (
            {"root": torch.ones(3, 3).double()},
            ValueError,
            r"root must be \[3, 3, 3\] beside z, got \[3, 3\]",
        ),
        (
            {"root": torch.ones(3, 3, 3).double(), "inv_mass": torch.ones(3, 3).double()},
            ValueError,
            "a mass is inv_mass or root, got both; pass one of them",
        ),
    ],
)
def test_errors_say_what_came_and_what_to_do(change, error, message):
    case = posterior()
    p, grad = start(case)
    arguments = {**case._asdict(), "p": p, "grad": grad, "step": 0.1, "leapfrog": 2}
    with pytest.raises(error, match=message):
        net_trajectory(**{**arguments, "likelihood": "bernoulli", **change})
