"""``log_likelihood`` against autograd, torch.compile and JAX."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import ContinuousBernoulli

from vaefast import ops
from vaefast.bench.cases import images
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark

STD = 0.3
SIZES = ((64, 784), (256, 3072))
FLOP = {"bernoulli": 12, "gaussian": 6, "continuous_bernoulli": 30}  # an exponential counts as 4


def benchmarks() -> Iterator[Benchmark]:
    """Two reads and one write of a pixel: 12 bytes in float32."""
    for likelihood, flop in FLOP.items():
        for N, D in SIZES:
            x = images(N, D, device=nets.DEVICE).x
            out = 3 * torch.randn(N, D, device=nets.DEVICE)
            yield Benchmark(
                op="log_likelihood",
                case=f"{likelihood} N={N} D={D} float32 {nets.DEVICE}",
                providers=providers(out, x, likelihood),
                bytes=12 * N * D,
                flop=flop * N * D,
                ceiling="torch.add(out=)",
                tolerance=1e-2,  # of torch's continuous Bernoulli, which errs by 3e-3 in float32
            )


def providers(out: Tensor, x: Tensor, likelihood: str) -> dict:
    """Each returns the gradient, having computed the value as well."""
    result = torch.empty_like(out)
    compiled = nets.compiled(eager)
    options = {"likelihood": likelihood, "likelihood_params": params(likelihood)}
    found = {
        "vaefast": lambda: ops.log_likelihood(out, x, **options)[1],
        "torch.add(out=)": lambda: torch.add(out, x, out=result),
        "autograd": lambda: by_autograd(out, x, likelihood),
    }
    if likelihood == "bernoulli":
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
