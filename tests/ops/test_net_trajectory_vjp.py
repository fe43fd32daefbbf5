"""net_trajectory_vjp: autograd through the reference's trajectory, exactly."""

import math

import pytest
import torch

import vaefast as vf
from vaefast.bench.cases import ACTIVATIONS, posterior
from vaefast.ops import net_potential, net_trajectory, net_trajectory_vjp
from vaefast.types import LIKELIHOODS


def draw(*shape, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def problem(likelihood="bernoulli", B=3, C=2, massive=True, end=True, **shape):
    """Arguments of the op, each row with a step size of its own."""
    z, x, net = posterior(B, C, **shape)
    if likelihood != "gaussian" and net.activations[-1] == "sigmoid":
        net = net.with_epilogue("identity")
    params = (0.3 + x,) if likelihood == "gaussian" else ()
    return {
        "z": z,
        "p": draw(*z.shape),
        "upstream": draw(*z.shape, seed=4),
        "x": x,
        "net": net,
        "likelihood": likelihood,
        "likelihood_params": params,
        "upstream_p": draw(*z.shape, seed=5) if end else None,
        "step": torch.linspace(0.05, 0.2, len(z), dtype=z.dtype),
        "inv_mass": 0.5 + draw(len(x), z.shape[1]).abs() if massive else None,
        "leapfrog": 4,
    }


def by_autograd(given):
    """Derivatives in z, p and x of the reference's trajectory."""
    given = dict(given)
    up, up_p = given.pop("upstream"), given.pop("upstream_p")
    names = "likelihood", "likelihood_params"
    like = {name: given.pop(name) for name in names} | {"backend": "reference"}
    z, p, x = (given.pop(name).clone().requires_grad_() for name in ("z", "p", "x"))
    _, grad = net_potential(z, x, given["net"], **like)
    end = net_trajectory(z, p, grad, x, **given, **like)
    if up_p is None:
        return torch.autograd.grad(end[0], (z, p, x), up)
    return torch.autograd.grad(end[:2], (z, p, x), (up, up_p))


def assert_is_autograds(given, backend, tolerance=1e-9):
    for found, wanted in zip(net_trajectory_vjp(**given, backend=backend), by_autograd(given)):
        scale = wanted.abs().max().item()
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("massive", [False, True])
def test_is_autograd_through_the_reference(backend, massive, end, likelihood):
    assert_is_autograds(problem(likelihood, massive=massive, end=end), backend)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation(backend, name):
    for last in ("identity", name):
        case = problem("gaussian", widths=(3, 8, 6, 10), activations=f"{name},{name},{last}")
        net = case["net"]  # weights as small as exponentials of exponentials need
        case["net"] = net._replace(weights=[0.4 * w for w in net.weights])
        assert_is_autograds(case, backend)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_wide_logits(backend, likelihood):
    """Logits on both sides of the series, of the fold and of the clamp."""
    case = problem(likelihood, widths=(2, 40), activations="identity")
    net = case["net"]
    case["net"] = net._replace(weights=[12 * net.weights[0]])
    case["step"] = 0.01 * case["step"]
    assert_is_autograds(case, backend)


@pytest.mark.parametrize("name", ["mixed", "published"])
def test_networks_with_pixels(require, name):
    require("net_trajectory_vjp", "cpp")
    widths = {"mixed": (5, 72), "published": (6, 784)}[name]
    for likelihood in ("bernoulli", "gaussian"):
        assert_is_autograds(problem(likelihood, widths=widths, activations=name), "cpp")


def test_positions_are_kept_in_parts_where_they_do_not_fit(require):
    """One position's activations of a block of rows take a megabyte."""
    require("net_trajectory_vjp", "cpp")
    shape = {"widths": (4, 3000, 20), "activations": "tanh,identity"}
    case = problem(B=20, C=1, **shape) | {"leapfrog": 75}
    case["step"] = 0.02 * case["step"]
    assert_is_autograds(case, "cpp")


def test_one_leapfrog(backend):
    for end in (False, True):
        assert_is_autograds(problem(end=end) | {"leapfrog": 1}, backend)


def test_steps_of_no_size_pass_everything_on(backend):
    case = problem() | {"step": 0.0}
    into_z, into_p, into_x = net_trajectory_vjp(**case, backend=backend)
    assert torch.equal(into_z, case["upstream"])
    assert torch.equal(into_p, case["upstream_p"])
    assert not into_x.any()


def test_rows_that_stayed_give_their_cotangent_back(backend):
    case, accepted = problem(), torch.tensor([True, False, False, False, True, True])
    into_z, into_p, into_x = net_trajectory_vjp(**case, accepted=accepted, backend=backend)
    alone = problem()
    alone["upstream"] = torch.where(accepted[:, None], alone["upstream"], 0.0)
    alone["upstream_p"] = torch.where(accepted[:, None], alone["upstream_p"], 0.0)
    moved = net_trajectory_vjp(**alone, backend=backend)
    torch.testing.assert_close(into_z, torch.where(accepted[:, None], moved[0], case["upstream"]))
    torch.testing.assert_close(into_p, moved[1])
    torch.testing.assert_close(into_x, moved[2])
    assert not into_x[1].any()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    "place", ["z", "p", "upstream", "upstream_p", "x", "step", "inv_mass", "likelihood_params"]
)
def test_bad_rows_are_nan_and_the_others_are_untouched(backend, place, bad):
    case = problem("gaussian")
    clean = net_trajectory_vjp(**case, backend=backend)
    if place == "likelihood_params":
        case[place] = (case[place][0].clone(),)
        case[place][0][1, 3] = bad
    else:
        case[place][1] = bad
    per_input = place in ("x", "inv_mass", "likelihood_params")
    hit = [2, 3] if per_input else [1]
    others = [n for n in range(6) if n not in hit]
    found = net_trajectory_vjp(**case, backend=backend)
    for result, before in zip(found[:2], clean):
        assert result[hit].isnan().all()
        torch.testing.assert_close(result[others], before[others])
    image = 1 if per_input else 0
    assert found[2][image].isnan().all()
    rest = [b for b in range(3) if b != image]
    torch.testing.assert_close(found[2][rest], clean[2][rest])


def test_any_cut_of_the_batch_gives_the_same_rows(backend):
    case = problem(B=7, C=3)
    whole = net_trajectory_vjp(**case, backend=backend)
    per_row = ("z", "p", "upstream", "upstream_p", "step")
    part = {name: case[name][12:] for name in per_row}
    part |= {name: case[name][4:] for name in ("x", "inv_mass")}
    tail = net_trajectory_vjp(**case | part, backend=backend)
    torch.testing.assert_close(tail, (whole[0][12:], whole[1][12:], whole[2][4:]))
    vf.set_memory(1)
    torch.testing.assert_close(net_trajectory_vjp(**case, backend=backend), whole)


def test_bits_do_not_depend_on_neighbours_or_threads(require):
    """Which rows are accepted moves the others to other blocks; shares of x add up in order."""
    require("net_trajectory_vjp", "cpp")
    case = problem(B=9, C=5, widths=(7, 33, 50), activations="tanh,identity")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = net_trajectory_vjp(**case, backend="cpp")
        torch.set_num_threads(3)
        assert all(map(torch.equal, whole, net_trajectory_vjp(**case, backend="cpp")))
    finally:
        torch.set_num_threads(before)
    accepted = torch.arange(45) % 3 == 1
    some = net_trajectory_vjp(**case, accepted=accepted, backend="cpp")
    assert torch.equal(some[0][accepted], whole[0][accepted])
    assert torch.equal(some[1][accepted], whole[1][accepted])
    for b in range(9):
        total = torch.zeros(50, dtype=torch.float64)
        for n in range(5 * b, 5 * b + 5):
            own = {k: case[k][n : n + 1] for k in ("z", "p", "upstream", "upstream_p", "step")}
            own |= {k: case[k][b : b + 1] for k in ("x", "inv_mass")}
            total = total + net_trajectory_vjp(**case | own, backend="cpp")[2][0]
        assert torch.equal(total, whole[2][b])


def test_no_rows(backend):
    case = problem(B=3, C=1)
    rows = {name: case[name][:0] for name in ("z", "p", "upstream", "upstream_p", "step")}
    into_z, into_p, into_x = net_trajectory_vjp(**case | rows, backend=backend)
    assert into_z.shape == into_p.shape == (0, 3)
    assert not into_x.any()


def test_what_runs_on_a_gpu_is_said():
    support = vf.supports("net_trajectory_vjp", "triton", device="cuda")
    assert not support
    assert 'no "triton" backend yet; its reference runs' in support.reason
    assert "captured graphs" in support.reason


def test_inputs_that_require_grad():
    case = problem()
    case["upstream"].requires_grad_()
    with pytest.raises(RuntimeError, match="net_trajectory_vjp is not differentiable; use backend"):
        net_trajectory_vjp(**case)
    small = problem(B=1, C=1, widths=(2, 4, 3), activations="tanh,identity")
    assert torch.autograd.gradcheck(
        lambda z: net_trajectory_vjp(**small | {"z": z}, backend="reference"),
        small["z"].requires_grad_(),
    )


@pytest.mark.parametrize("bare", [False, True])
def test_registered_op_passes_opcheck(backend, bare):
    case = problem(massive=not bare, end=not bare)
    state = [case[name] for name in ("z", "p", "upstream", "upstream_p")]
    state += [None if bare else torch.arange(6) > 2, case["x"], *case["net"], "bernoulli", []]
    state += [case["step"], case["inv_mass"], 3, "ieee", 0, backend]
    torch.library.opcheck(torch.ops.vaefast.net_trajectory_vjp.default, tuple(state))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"upstream": torch.zeros(6, 2).double()},
            ValueError,
            r"upstream must be \[6, 3\] beside z, got \[6, 2\]",
        ),
        (
            {"upstream_p": torch.zeros(6, 3)},
            TypeError,
            "upstream_p must be float64 like z, got float32",
        ),
        ({"accepted": torch.ones(5).bool()}, ValueError, r"accepted must be \[N\] = \[6\]"),
        ({"accepted": torch.ones(6)}, TypeError, "accepted must be bool, got float32; pass"),
        ({"leapfrog": 0}, ValueError, "leapfrog must be at least 1, got 0"),
        ({"step": torch.ones(3)}, ValueError, r"step must be a float or .* = \[6\], got \[3\]"),
        ({"inv_mass": torch.ones(2, 3).double()}, ValueError, "inv_mass must have 3 rows like x"),
    ],
)
def test_errors_say_what_came_and_what_to_do(change, error, message):
    with pytest.raises(error, match=message):
        net_trajectory_vjp(**problem() | change)
