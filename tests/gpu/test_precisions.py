"""The kernels as they are compiled for the GPU that is there, on the networks of the table.

The interpreter computes the same numbers on small shapes; here run the compiled configurations,
the matrix units' rounding, and batches around the tiles.
"""

from functools import cache

import pytest
import torch

import vaefast as vf
from vaefast import ops
from vaefast.bench.cases import images, network, posterior
from vaefast.functional.latents import latents

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device was found")

WIDTHS = (32, 512, 512, 784)
ODD = (17, 100, 333, 300)
PRECISIONS = {"ieee": 2e-5, "tf32": 5e-3, "bf16": 5e-2}  # allowed, of the largest entry
ROWS = (1, 63, 130)
SHARED = (1, 130, 2200)  # in tiles of 16: 16, 8 and 1 programs share one on 132 multiprocessors
SAMPLES = 40
SEED = 130  # of chains: the first 130 rows draw no number near 1, so that rounding rejects none


@cache
def drawn(width):
    """Numbers for the most rows there are, so that fewer rows are the first of them."""
    return images(max(SHARED), width, device="cuda")


@cache
def chains(widths):
    how = {"dtype": torch.float32, "device": "cuda"}
    case = posterior(max(SHARED), 1, widths=widths, activations="tanh,tanh,identity", **how)
    return case._replace(z=0.3 * case.z)


@cache
def balls(widths):
    """(mean, std, centre, r), r in the widest gap between a row's middling distances."""
    mean, _, net = chains(widths)
    std, centre = torch.full_like(mean, 0.2), ops.net_forward(mean, net, backend="reference")
    rows, samples = (torch.arange(n, device=mean.device) for n in (len(mean), SAMPLES))
    z = latents(mean, std, seed=0, index=rows, samples=samples)
    out = ops.net_forward(z.flatten(0, 1), net, backend="reference").unflatten(0, z.shape[:2])
    away = (out - centre[:, None]).norm(dim=2).sort(dim=1).values[:, SAMPLES // 4 : -SAMPLES // 4]
    gap = away.diff(dim=1).argmax(dim=1, keepdim=True)
    return mean, std, centre, 0.5 * (away.gather(1, gap) + away.gather(1, gap + 1))[:, 0]


def decoder(rows, widths=WIDTHS):
    case = chains(widths)
    return case._replace(z=case.z[:rows], x=case.x[:rows])


def encoder(rows, widths=WIDTHS):
    net = network(widths[::-1], "tanh,tanh,identity", dtype=torch.float32, device="cuda")
    return drawn(widths[-1]).x[:rows], net


def forward(rows, widths, **options):
    z, _, net = decoder(rows, widths)
    return (ops.net_forward(z, net, **options),)


def potential(rows, widths, **options):
    z, x, net = decoder(rows, widths)
    return ops.net_potential(z, x, net, likelihood="bernoulli", **options)


def trajectory(rows, widths, **options):
    z, x, net = decoder(rows, widths)
    p, grad = drawn(widths[0]).grad[:rows], potential(rows, widths, **options)[1]
    like = {"likelihood": "bernoulli", "step": 1e-3, "leapfrog": 3}
    return ops.net_trajectory(z, p, grad, x, net, **like, **options)


def chain(rows, widths, **options):
    z, x, net = decoder(rows, widths)
    how = {"likelihood": "bernoulli", "step": 1e-3, "leapfrog": 3, "seed": SEED, "steps": 2}
    return ops.net_chain(z, *potential(rows, widths, **options), x, net, thin=1, **how, **options)


def distance(rows, widths, **options):
    ball, net = (t[:rows] for t in balls(widths)), chains(widths).net
    return (ops.decode_distance(*ball, net, samples=SAMPLES, **options),)


def gram(rows, widths, **options):
    x, net = encoder(rows, widths)
    return (ops.net_jacobian_gram(x, net, inv_std=1 + x[:, : widths[0]], **options),)


def tangents(rows, widths, **options):
    x, net = encoder(rows, widths)
    return ops.net_jvp(x, images(8, widths[-1], device="cuda").grad, net, **options)


def cotangents(rows, widths, **options):
    x, net = encoder(rows, widths)
    return ops.net_vjp(x, images(8, widths[0], device="cuda").grad, net, **options)


CALLS = {
    "net_forward": forward,
    "net_potential": potential,
    "net_trajectory": trajectory,
    "net_chain": chain,
    "decode_distance": distance,
    "net_jacobian_gram": gram,
    "net_jvp": tangents,
    "net_vjp": cotangents,
}


def need(op):
    if not (support := vf.supports(op, "triton", device="cuda")):
        pytest.skip(support.reason)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("widths", [WIDTHS, ODD], ids=["large", "odd"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("op", CALLS)
def test_close_to_the_reference_and_the_same_twice(op, precision, widths, rows):
    need(op)
    truth = CALLS[op](rows, widths, backend="reference")
    found = CALLS[op](rows, widths, backend="triton", precision=precision)
    again = CALLS[op](rows, widths, backend="triton", precision=precision)
    for expected, result, second in zip(truth, found, again):
        assert torch.equal(result, second)
        error = (result.double() - expected.double()).abs().max()
        assert error <= PRECISIONS[precision] * max(1.0, expected.abs().max().item())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("op", CALLS)
def test_a_pinned_tile_gives_a_row_the_same_bits_in_any_batch(op, precision):
    need(op)
    options = {"backend": "triton", "precision": precision, "tile": 16}
    one, some, many = (CALLS[op](rows, WIDTHS, **options) for rows in SHARED)
    for alone, part, whole in zip(one, some, many):
        assert torch.equal(part[:1], alone)
        assert torch.equal(whole[: len(part)], part)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_chains_sample_the_same_posterior(precision):
    """Energies are exact whatever the gradients' precision, so they settle at the same level."""
    need("net_chain")
    z, x, net = decoder(256)

    def level(**options):
        like = {"likelihood": "bernoulli", "step": 0.02, "leapfrog": 5, "jitter": 0.2}
        U, grad = ops.net_potential(z, x, net, likelihood="bernoulli", **options)
        chain = ops.net_chain(z, U, grad, x, net, **like, steps=60, **options)
        assert chain.accepted.double().mean() > 30
        return chain.U.mean().item(), (chain.U.std() / 16).item()

    exact, error = level(backend="triton", precision="ieee")
    rounded, _ = level(backend="triton", precision=precision)
    assert abs(rounded - exact) < 5 * error
