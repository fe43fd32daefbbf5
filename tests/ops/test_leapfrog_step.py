"""leapfrog_step: the two shears, in place, with one mass per input and one step per row."""

import math

import pytest
import torch

from vaefast.ops import leapfrog_step

N, d, C = 6, 5, 2


def state(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z, p, grad = torch.randn(3, N, d, generator=generator, dtype=torch.float64)
    step = torch.rand(N, generator=generator, dtype=torch.float64)
    inv_mass = 0.5 + torch.rand(N // C, d, generator=generator, dtype=torch.float64)
    return [t.to(dtype, copy=True) for t in (z, p, grad, step, inv_mass)]


@pytest.mark.parametrize("drift", [False, True])
@pytest.mark.parametrize("massive", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value(backend, dtype, massive, drift):
    z, p, grad, step, inv_mass = state(dtype)
    momentum = p - 0.5 * step[:, None] * grad
    mass = inv_mass.repeat_interleave(C, 0) if massive else torch.ones(N, d, dtype=dtype)
    position = z + step[:, None] * mass * momentum if drift else z.clone()
    result = leapfrog_step(
        z, p, grad, step, inv_mass=inv_mass if massive else None, kick=0.5, drift=drift,
        backend=backend,
    )  # fmt: skip
    assert result is None
    torch.testing.assert_close(p, momentum)
    torch.testing.assert_close(z, position)


def test_step_may_be_a_float_and_states_may_be_strided(backend):
    z, p, grad, _, _ = state()
    frame = torch.full((2, N, 2 * d), 7.0, dtype=torch.float64)
    frame[0, :, ::2], frame[1, :, ::2] = z, p
    leapfrog_step(frame[0, :, ::2], frame[1, :, ::2], grad, 0.3, backend=backend)
    torch.testing.assert_close(frame[1, :, ::2], p - 0.3 * grad)
    torch.testing.assert_close(frame[0, :, ::2], z + 0.3 * (p - 0.3 * grad))
    assert (frame[:, :, 1::2] == 7.0).all()  # nothing beside them was written


def test_reversed_momentum_leads_back(backend):
    """Half kick, drift, half kick with a force that depends on z alone is its own inverse."""
    z, p, _, step, inv_mass = state()
    z0, p0 = z.clone(), p.clone()
    for _ in range(2):
        leapfrog_step(z, p, z.sin(), step, inv_mass=inv_mass, kick=0.5, backend=backend)
        leapfrog_step(z, p, z.sin(), step, kick=0.5, drift=False, backend=backend)
        p.neg_()
    torch.testing.assert_close(z, z0, rtol=0, atol=1e-14)
    torch.testing.assert_close(p, p0, rtol=0, atol=1e-14)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", range(5))
def test_bad_rows_are_nan_and_the_others_are_untouched(backend, place, bad):
    clean, arguments = state(), state()
    leapfrog_step(*clean[:4], inv_mass=clean[4], backend=backend)
    arguments[place][1 if place == 4 else 2] = bad
    leapfrog_step(*arguments[:4], inv_mass=arguments[4], backend=backend)
    hit = [2, 3] if place == 4 else [2]
    others = [n for n in range(N) if n not in hit]
    for result, expected in zip(arguments[:2], clean[:2]):
        assert result[hit].isnan().all()
        assert torch.equal(result[others], expected[others])


def test_a_kick_alone_does_not_look_at_the_position(backend):
    z, p, grad, step, _ = state()
    z[1] = math.nan
    leapfrog_step(z, p, grad, step, drift=False, backend=backend)
    assert p.isfinite().all()
    assert z[[0, 2, 3, 4, 5]].isfinite().all()


def test_inputs_that_require_grad(backend):
    z, p, grad, step, _ = state()
    step.requires_grad_()
    with pytest.raises(RuntimeError, match="leapfrog_step is not differentiable; use backend="):
        leapfrog_step(z, p, grad, step)
    leapfrog_step(z, p, grad, step, backend="reference")
    assert torch.autograd.grad(z.sum(), step)[0].shape == (N,)


@pytest.mark.parametrize("shape", [(0, d), (3, 0), (0, 0)])
def test_empty(backend, shape):
    for inv_mass in (None, torch.zeros(shape)):
        state = torch.zeros(3, *shape)
        leapfrog_step(*state, torch.zeros(shape[0]), inv_mass=inv_mass, backend=backend)


def moved(arguments, drift=True, backend=None):
    """New (z, p) [2, N, d] after half a kick."""
    z, p, grad, step, inv_mass = arguments
    z, p = z.clone(), p.clone()
    leapfrog_step(z, p, grad, step, inv_mass=inv_mass, kick=0.5, drift=drift, backend=backend)
    return torch.stack((z, p))


def many(dtype, N=3000, d=37, C=4):
    generator = torch.Generator().manual_seed(1)
    z, p, grad = torch.randn(3, N, d, generator=generator, dtype=torch.float64).to(dtype)
    step = torch.rand(N, generator=generator, dtype=torch.float64).to(dtype)
    inv_mass = 0.5 + torch.rand(N // C, d, generator=generator, dtype=torch.float64).to(dtype)
    return z, p, grad, step, inv_mass


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_error_is_at_most_twice_that_of_eager_torch(backend, dtype):
    arguments = many(dtype)
    truth = moved([t.double() for t in arguments], backend="reference")
    eager = (moved(arguments, backend="reference").double() - truth).abs().max()
    error = (moved(arguments, backend=backend).double() - truth).abs().max()
    assert error <= 2 * eager + 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("drift", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_bits_for_any_cut_and_thread_count(backend, dtype, drift):
    N = 300 if backend == "triton" else 3000  # the interpreter is slow
    arguments = many(dtype, N)
    whole = moved(arguments, drift, backend)
    assert torch.equal(moved(arguments, drift, backend), whole)
    for n in (0, 5, N - 1):
        row = [t[n // 4 : n // 4 + 1] if len(t) < N else t[n : n + 1] for t in arguments]
        assert torch.equal(moved(row, drift, backend), whole[:, n : n + 1])
    halves = [
        moved([t[part] for part, t in zip([rows] * 4 + [groups], arguments)], drift, backend)
        for rows, groups in (
            (slice(0, 104), slice(0, 26)),
            (slice(104, N), slice(26, N // 4)),
        )
    ]
    assert torch.equal(torch.cat(halves, dim=1), whole)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3) if backend == "cpp" else (1,):
            torch.set_num_threads(threads)
            assert torch.equal(moved(arguments, drift, backend), whole)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("drift", [False, True])
def test_any_layout(backend, drift):
    z, p, grad, step, inv_mass = arguments = state()
    truth = moved(arguments, drift, backend)
    wide = torch.full((2, N, d + 3), 7.0, dtype=torch.float64)
    tall = torch.full((2, 2 * d, N), 7.0, dtype=torch.float64)
    pairs = [wide[:, :, 1 : d + 1], tall.mT[:, :, ::2]]
    for pair in pairs:
        pair[0], pair[1] = z, p
        others = (grad.T.contiguous().T, torch.stack((step, step), 1)[:, 0])
        masses = inv_mass.T.contiguous().T
        leapfrog_step(*pair, *others, inv_mass=masses, kick=0.5, drift=drift, backend=backend)
        assert torch.equal(pair, truth)
    assert (wide[:, :, 0] == 7.0).all()
    assert (wide[:, :, d + 1 :] == 7.0).all()
    assert (tall[:, 1::2] == 7.0).all()


def test_a_step_and_gradient_that_all_rows_share(backend):
    z, p, grad, step, _ = state()
    shared = [z, p, grad[:1].expand(N, d), step[:1].expand(N), None]
    separate = [t if t is None else t.contiguous() for t in shared]
    assert torch.equal(moved(shared, backend=backend), moved(separate, backend=backend))


def test_a_state_that_overlaps_itself_is_refused(backend):
    z, p, grad, step, _ = state()
    with pytest.raises(RuntimeError):
        leapfrog_step(z[:1].expand(N, d), p, grad, step, backend=backend)


@pytest.mark.parametrize(("massive", "requires_grad"), [(False, False), (True, True)])
def test_registered_op_passes_opcheck(backend, massive, requires_grad):
    z, p, grad, step, inv_mass = state()
    grad.requires_grad_(requires_grad)
    arguments = (z, p, grad, step, inv_mass if massive else None, 0.5, True, backend)
    torch.library.opcheck(torch.ops.vaefast.leapfrog_step.default, arguments)


def test_compiles_without_graph_breaks_or_recompiling(backend):
    torch._dynamo.reset()
    compiled = torch.compile(leapfrog_step, fullgraph=True, backend="aot_eager", dynamic=False)
    for seed in (0, 1):
        eager, traced = state(seed=seed), state(seed=seed)
        leapfrog_step(*eager[:4], inv_mass=eager[4], backend=backend)
        with torch._dynamo.config.patch(error_on_recompile=seed > 0):
            compiled(*traced[:4], inv_mass=traced[4], backend=backend)
        torch.testing.assert_close(traced, eager)


@pytest.mark.parametrize(
    ("place", "value", "error", "message"),
    [
        (0, torch.zeros(5), ValueError, r"z must be \[N, d\], got \[5\]"),
        (1, torch.zeros(6, 4), ValueError, r"p must be \[6, 5\] beside z, got \[6, 4\]"),
        (2, torch.zeros(6, 5), TypeError, "grad must be float64 like z, got float32"),
        (3, torch.zeros(5), ValueError, r"step must be a float or \[B\] = \[6\], got \[5\]"),
        (4, torch.zeros(4, 5).double(), ValueError, "each of the 4 rows of inv_mass, got 6"),
        (4, torch.zeros(3, 4).double(), ValueError, r"inv_mass must be \[B, d\] with 5 columns"),
    ],
)
def test_errors_say_what_came_and_what_to_do(place, value, error, message):
    arguments = state()
    arguments[place] = value
    with pytest.raises(error, match=message):
        leapfrog_step(*arguments[:4], inv_mass=arguments[4])
