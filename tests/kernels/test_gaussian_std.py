"""The Gaussian's std as the C++ kernels read it: one for all, per pixel or per image."""

import math

import pytest
import torch

from vaefast.bench.cases import network
from vaefast.ops._cpp import kernel, layers_of, like_of, rows_at

pytest.importorskip("vaefast._C", reason="the C++ extension is not built")

B, C, D, WIDTHS = 3, 2, 37, (4, 6, 37)
NET = network(WIDTHS, "tanh,identity")


def rand(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64).to(dtype)


def stds(dtype=torch.float64):
    """Every layout that means the same as a full [B, D] of its own values."""
    full = 0.3 + rand(B, D, seed=3, dtype=dtype)
    return {
        "scalar": full[0, 0],
        "pixels": full[0],
        "images": full,
        "one per image": full[:, :1].expand(B, D),
        "columns apart": full.T.contiguous().T,
        "expanded": full[0].expand(B, D),
    }


def log_likelihood(out, x, std):
    logp, score = out.new_zeros(len(out), dtype=torch.float64), torch.full_like(out, math.nan)
    given = (out, x, logp, score)
    kernel("log_likelihood", out.dtype)(
        [t.data_ptr() for t in given],
        [t.stride(0) for t in (out, x, score)],
        *out.shape,
        *like_of(x, len(out), "gaussian", [std])[1:],
        1,
    )
    return logp, score


def by_torch(out, x, std):
    rows = std.expand(B, D).repeat_interleave(len(out) // B, 0).double()
    out = out.double().requires_grad_()
    normal = torch.distributions.Normal(out, rows)
    logp = normal.log_prob(x.double().repeat_interleave(len(out) // B, 0)).sum(1)
    return logp.detach(), torch.autograd.grad(logp.sum(), out)[0]


@pytest.mark.parametrize("layout", stds())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_likelihood_is_the_normal_s(layout, dtype):
    out, x, std = rand(B * C, D, seed=1, dtype=dtype), rand(B, D, dtype=dtype), stds(dtype)[layout]
    bound = 40 * torch.finfo(dtype).eps
    for found, truth in zip(log_likelihood(out, x, std), by_torch(out, x, std)):
        torch.testing.assert_close(found.double(), truth, rtol=bound, atol=bound * D)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("pixel", [0, D - 1])
def test_an_std_that_is_none_makes_its_image_s_rows_nan(bad, pixel):
    out, x, std = rand(B * C, D, seed=1), rand(B, D), stds()["images"].clone()
    clean = log_likelihood(out, x, std)
    std[1, pixel] = bad
    for found, before in zip(log_likelihood(out, x, std), clean):
        assert found[C : 2 * C].isnan().all()
        assert torch.equal(found[:C], before[:C])
        assert torch.equal(found[2 * C :], before[2 * C :])
    assert all(t.isnan().all() for t in log_likelihood(out, x, torch.tensor(bad).double()))


def potential(z, x, std, net=NET):
    U, grad = z.new_empty(len(z), dtype=torch.float64), torch.full_like(z, math.nan)
    layers, _alive = layers_of(*net)
    like = like_of(x, len(z), "gaussian", [std])
    kernel("net_potential", z.dtype)(
        U.data_ptr(), rows_at(grad), rows_at(z), len(z), layers, like, 2
    )
    return U, grad


def trajectory(z, x, std, net=NET):
    """Ends z, p, grad and U of three leapfrog steps."""
    _, grad = potential(z, x, std, net)
    start, ends = (z, z.flip(1), grad), [torch.full_like(z, math.nan) for _ in "zpg"]
    U, step = z.new_empty(len(z), dtype=torch.float64), torch.full_like(z[:, 0], 0.02)
    layers, _alive = layers_of(*net)
    like = like_of(x, len(z), "gaussian", [std])
    kernel("net_trajectory", z.dtype)(
        [rows_at(t) for t in ends], U.data_ptr(), [rows_at(t) for t in start], step.data_ptr(),
        (0, 0), (0, 0), len(z), 3, layers, like, 2,
    )  # fmt: skip
    return U, *ends


def chain(z, x, std, net=NET):
    """U, ends z and grad, and counts of five transitions."""
    U, grad = potential(z, x, std, net)
    z, step = z.clone(), torch.full_like(x[:, 0], 0.05)
    counts, index = torch.zeros(2, len(z), dtype=torch.int64), torch.arange(len(x))
    layers, _alive = layers_of(*net)
    like = like_of(x, len(z), "gaussian", [std])
    results = (U.data_ptr(), counts[0].data_ptr(), counts[1].data_ptr(), 0, 0)
    kernel("net_chain", z.dtype)(
        [rows_at(z), rows_at(grad)], results, (step.data_ptr(), index.data_ptr()), (0, 0),
        (0, 0), (len(z), 3, 0, 5, 0, 0), 0.0, 7, layers, like, 2,
    )  # fmt: skip
    return U, z, grad, counts.double()


@pytest.mark.parametrize("run", [potential, trajectory, chain])
def test_dividing_by_the_std_is_the_same_posterior(run):
    """N(x; g(z), s²) is N(x/s; g(z)/s, 1) but for the constant Σ log s."""
    z, x, std = rand(B * C, WIDTHS[0], seed=2), rand(B, D), stds()["pixels"]
    scaled = NET._replace(
        weights=[NET.weights[0], NET.weights[1] / std[:, None]],
        biases=[NET.biases[0], NET.biases[1] / std],
    )
    U, *rest = run(z, x, std)
    expected, *others = run(z, x / std, std.new_ones(()), scaled)
    torch.testing.assert_close(U, expected + std.log().sum(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rest, others, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layout", ["images", "one per image", "columns apart"])
@pytest.mark.parametrize("run", [potential, trajectory])
def test_each_image_has_its_own_std(run, layout):
    z, x, std = rand(B * C, WIDTHS[0], seed=2), rand(B, D), stds()[layout]
    for b, parts in enumerate(zip(*(t.split(C) for t in run(z, x, std)))):
        alone = run(z[b * C :][:C], x[b : b + 1], std[b])
        torch.testing.assert_close(list(parts), list(alone), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("run", [potential, trajectory])
def test_an_image_with_a_bad_std_has_nan_rows(run):
    z, x, std = rand(B * C, WIDTHS[0], seed=2), rand(B, D), stds()["images"].clone()
    clean = run(z, x, std)
    std[1, 5] = 0.0
    for found, before in zip(run(z, x, std), clean):
        assert found[C : 2 * C].isnan().all()
        assert torch.equal(found[:C], before[:C])


def test_a_chain_with_a_bad_std_diverges_at_every_transition():
    z, x, std = rand(B * C, WIDTHS[0], seed=2), rand(B, D), stds()["images"].clone()
    std[1, 5] = math.nan
    U, _, _, (accepted, divergent) = chain(z, x, std)
    assert U[C : 2 * C].isnan().all()
    assert (accepted[C : 2 * C] == 0).all()
    assert (divergent[C : 2 * C] == 5).all()
    assert U[:C].isfinite().all()
