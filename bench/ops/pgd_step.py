"""``pgd_step`` against the update of torchattacks' PGD, torch.compile, JAX and plain bandwidth."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import vaefast as vf
from vaefast.bench.cases import Images
from vaefast.bench.ops import _jax as jx
from vaefast.bench.place import Place
from vaefast.bench.runner import Benchmark, Case, Provider
from vaefast.functional.pgd import projected_step as reference

__all__ = ["cases"]

ALPHA = 0.01
EPS = {"linf": 0.03, "l2": 1.5}
SIZES = ((256, 3072), (256, 784), (1, 784))  # of a CPU; asked of the first
AT_LEAST = {"torchattacks' update": 5.0, "torch.compile": 1.3, "torch.compile into out": 1.3}
PIXELS = 1 << 28  # of a GPU, far more than its L2 cache holds
WIDTHS = (3072, 784, 16384)


def cases(place: Place) -> list[Case]:
    """ℓ∞ and ℓ2 steps; 16 bytes an element at least: three reads and one write in float32."""
    large = tuple((PIXELS // D, D) for D in WIDTHS)
    return [
        (f"{norm} B={B} D={D}", partial(case, place, norm, B, D))
        for norm in EPS
        for B, D in place.table(SIZES, large, ((5, 96),))
    ]


def case(place: Place, norm: str, B: int, D: int) -> Benchmark:
    x = place.pixels(B, D)
    x_adv = (x + 0.05 * place.normal(B, D, seed=1)).clamp_(0, 1)
    return Benchmark(
        op="pgd_step",
        case=f"{norm} B={B} D={D} float32 {place.device}",
        providers=providers(place, Images(x_adv, place.normal(B, D, seed=2), x), norm),
        bytes=16 * B * D,
        flop=(8 if norm == "linf" else 14) * B * D,
        **place.bandwidth("torch.lerp(out=)"),
        **asked(place, B, D),
    )


def asked(place: Place, B: int, D: int) -> dict[str, Any]:
    if not place.on_cpu:
        return {"at_least_of": {"torchattacks' update": 4.0}, "percent_at_least": 90.0}
    return {"at_least_of": AT_LEAST, "percent_at_least": 80.0} if SIZES[0] == (B, D) else {}


def providers(place: Place, data: Images, norm: str) -> dict[str, Provider]:
    """Ours first; every other one computes the same update from the same tensors."""
    x_adv, grad, x = data
    out = torch.empty_like(x)
    fresh, into = place.compiled(eager), place.compiled(eager_into)
    options: dict[str, Any] = {"alpha": ALPHA, "eps": EPS[norm], "norm": norm}
    options["backend"] = place.backend("pgd_step")
    found: dict[str, Provider] = {
        "vaefast (out=)": lambda: vf.pgd_step(x_adv, grad, x, out=out, **options),
        "vaefast": lambda: vf.pgd_step(x_adv, grad, x, **options),
    }
    if place.on_cpu:
        weight = torch.rand_like(x)
        found["torch.lerp(out=)"] = lambda: torch.lerp(x_adv, grad, weight, out=out)
    return found | {
        "torchattacks' update": lambda: torchattacks_update(x_adv, grad, x, norm),
        "eager reference": lambda: eager(x_adv, grad, x, norm),
        "torch.compile": lambda: fresh(x_adv, grad, x, norm),
        "torch.compile into out": lambda: into(out, x_adv, grad, x, norm),
        **jx.jitted(jax_update(norm), x_adv, grad, x),
    }


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
