"""``pgd_step`` against the update of torchattacks' PGD, torch.compile, JAX and plain bandwidth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import vaefast as vf
from vaefast.bench.cases import Images, images
from vaefast.bench.ops import _jax as jx
from vaefast.bench.runner import Benchmark
from vaefast.functional.pgd import projected_step as reference

ALPHA = 0.01
EPS = {"linf": 0.03, "l2": 1.5}
AT_LEAST = {"torchattacks' update": 5.0, "torch.compile": 1.3, "torch.compile into out": 1.3}
SIZES = ((256, 3072), (256, 784), (1, 784))


def benchmarks() -> Iterator[Benchmark]:
    """ℓ∞ and ℓ2 steps; 16 bytes an element at least: three reads and one write in float32."""
    for norm in ("linf", "l2"):
        for B, D in SIZES:
            yield Benchmark(
                op="pgd_step",
                case=f"{norm} B={B} D={D} float32 cpu",
                providers=providers(images(B, D), norm),
                bytes=16 * B * D,
                flop=(8 if norm == "linf" else 14) * B * D,
                ceiling="torch.lerp(out=)",
                at_least_of=AT_LEAST if SIZES[0] == (B, D) else {},
                percent_at_least=80.0 if SIZES[0] == (B, D) else math.nan,
            )


def providers(data: Images, norm: str) -> dict[str, Callable[[], Tensor]]:
    """Ours first; every other one computes the same update from the same tensors."""
    x_adv, grad, x = data
    out, weight = torch.empty_like(x), torch.rand_like(x)
    fresh = torch.compile(eager, fullgraph=True)
    into = torch.compile(eager_into, fullgraph=True)
    arguments = (x_adv, grad, x, norm)
    found = {
        "vaefast (out=)": lambda: vf.pgd_step(
            x_adv, grad, x, alpha=ALPHA, eps=EPS[norm], norm=norm, out=out
        ),
        "vaefast": lambda: vf.pgd_step(x_adv, grad, x, alpha=ALPHA, eps=EPS[norm], norm=norm),
        "torch.lerp(out=)": lambda: torch.lerp(x_adv, grad, weight, out=out),
        "torchattacks' update": lambda: torchattacks_update(*arguments),
        "eager reference": lambda: eager(*arguments),
        "torch.compile": lambda: fresh(*arguments),
        "torch.compile into out": lambda: into(out, *arguments),
    }
    return found | jx.jitted(jax_update(norm), x_adv, grad, x)


def eager(x_adv: Tensor, grad: Tensor, x: Tensor, norm: str) -> Tensor:
    return reference(x_adv, grad, x, ALPHA, EPS[norm], 0.0, 1.0, norm, 1e-12)


def eager_into(out: Tensor, x_adv: Tensor, grad: Tensor, x: Tensor, norm: str) -> Tensor:
    return out.copy_(eager(x_adv, grad, x, norm))


def torchattacks_update(x_adv: Tensor, grad: Tensor, x: Tensor, norm: str) -> Tensor:
    """The tensor operations between two gradients in torchattacks 3.5.1's PGD and PGDL2."""
    if norm == "linf":
        moved = x_adv.detach() + ALPHA * grad.sign()
        delta = torch.clamp(moved - x, min=-EPS[norm], max=EPS[norm])
        return torch.clamp(x + delta, min=0, max=1).detach()
    lengths = torch.norm(grad.view(len(x), -1), p=2, dim=1) + 1e-10
    moved = x_adv.detach() + ALPHA * (grad / lengths.view(len(x), 1))
    delta = moved - x
    distances = torch.norm(delta.view(len(x), -1), p=2, dim=1)
    factor = torch.min(EPS[norm] / distances, torch.ones_like(distances))
    return torch.clamp(x + delta * factor.view(-1, 1), min=0, max=1).detach()


def jax_update(norm: str) -> Callable:
    def update(a, g, c):
        import jax.numpy as jnp

        if norm == "linf":
            return jnp.clip(jnp.clip(a + ALPHA * jnp.sign(g), c - EPS[norm], c + EPS[norm]), 0, 1)
        length = jnp.maximum(jnp.linalg.norm(g, axis=1, keepdims=True), 1e-12)
        delta = a + ALPHA * g / length - c
        distance = jnp.linalg.norm(delta, axis=1, keepdims=True)
        return jnp.clip(c + delta * jnp.minimum(1, EPS[norm] / jnp.maximum(distance, 1e-30)), 0, 1)

    return update
