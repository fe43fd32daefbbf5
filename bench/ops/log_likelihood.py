"""``log_likelihood`` against autograd, torch.compile and JAX."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import ContinuousBernoulli

from vaefast import ops
from vaefast.bench.ops import _jax as jx
from vaefast.bench.place import Place
from vaefast.bench.runner import Benchmark, Case, Provider

__all__ = ["cases"]

STD = 0.3
FLOP = {"bernoulli": 12, "gaussian": 6, "continuous_bernoulli": 30}  # an exponential counts as 4
SIZES = ((64, 784), (256, 3072))  # of a CPU
BEYOND_CACHE = 100 << 20  # pixels


def cases(place: Place) -> list[Case]:
    """Two reads and one write of a pixel: 12 bytes in float32."""
    large = tuple((place.size(BEYOND_CACHE // D, 4), D) for D in (784, 3072))
    return [
        (f"{likelihood} N={N} D={D}", partial(case, place, likelihood, N, D))
        for likelihood in FLOP
        for N, D in (SIZES if place.on_cpu else large)
    ]


def case(place: Place, likelihood: str, N: int, D: int) -> Benchmark:
    x, out = place.pixels(N, D), 3 * place.normal(N, D, seed=1)
    return Benchmark(
        op="log_likelihood",
        case=f"{likelihood} N={N} D={D} float32 {place.device}",
        providers=providers(place, out, x, likelihood),
        bytes=12 * N * D,
        flop=FLOP[likelihood] * N * D,
        tolerance=1e-2,  # of torch's continuous Bernoulli, which errs by 3e-3 in float32
        **place.bandwidth("torch.add(out=)"),
    )


def providers(place: Place, out: Tensor, x: Tensor, likelihood: str) -> dict[str, Provider]:
    """Each returns the gradient, having computed the value as well."""
    options = {"likelihood": likelihood, "likelihood_params": params(likelihood)}
    options["backend"] = place.backend("log_likelihood")
    found: dict[str, Provider] = {
        "vaefast": lambda: ops.log_likelihood(out, x, **options)[::-1],
        "autograd": lambda: by_autograd(out, x, likelihood),
    }
    if place.on_cpu:
        result = torch.empty_like(out)
        found["torch.add(out=)"] = lambda: torch.add(out, x, out=result)
    if likelihood == "bernoulli":
        compiled = place.compiled(eager)
        found["eager"] = lambda: eager(out, x)[1]
        found["torch.compile"] = lambda: compiled(out, x)[1]
        found |= jx.jitted(jax_gradient, out, x)
    return found


def params(likelihood: str) -> list[float]:
    return [STD] if likelihood == "gaussian" else []


def eager(out: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    loss = F.binary_cross_entropy_with_logits(out, x, reduction="none")
    return -loss.sum(1, dtype=torch.float64), x - torch.sigmoid(out)


def by_autograd(out: Tensor, x: Tensor, likelihood: str) -> Tensor:
    out = out.detach().requires_grad_()
    if likelihood == "bernoulli":
        logp = -F.binary_cross_entropy_with_logits(out, x, reduction="sum")
    elif likelihood == "gaussian":
        logp = -0.5 * ((x - out) / STD).square().sum()
    else:
        logp = ContinuousBernoulli(logits=out, validate_args=False).log_prob(x).sum()
    return torch.autograd.grad(logp, out)[0]


def jax_gradient(out, x):
    import jax

    def logp(out):
        return (x * out - jax.nn.softplus(out)).sum()

    return jax.value_and_grad(logp)(out)[1]
