"""The plain PyTorch loops of :mod:`vaefast.bench.generic`, by the public function they stand for.

Each is run(vae, x, amount); a check gives theirs and ours of something that both must agree on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vaefast.philox import Use, normal

__all__ = ["ATTACK", "LEAPFROG", "LOOPS", "RADIUS", "STEP", "Loops", "repeated"]

LEAPFROG, STEP = 10, 0.01
EPS, ATTACK = 0.5, {"eps": 0.5, "norm": "l2"}
NOISE, FRESH = 8, 128  # samples of max_damage, as its defaults
RADIUS = 1.0
AT_ONCE = 512  # decoded together

Model = Any


@dataclass(frozen=True)
class Loops:
    """How a user does the work.

    Args:
        plain: what follows the layout's name to the loop.
        check: theirs and ours, from the model, x and our call.
        unit: of the amount.
        compiled: from a model the loop whose inner function torch.compile has.
        tolerance: of the check.
    """

    plain: Mapping[str, Callable]
    check: Callable
    unit: str
    compiled: Callable | None = None
    tolerance: float = 1e-3


def gradient(of: Callable[[Tensor], Tensor], point: Tensor) -> tuple[Tensor, Tensor]:
    point = point.detach().requires_grad_()
    value = of(point)
    return value.detach(), torch.autograd.grad(value.sum(), point)[0]


def energy(decoder: Callable, x: Tensor, z: Tensor) -> Tensor:
    """−log p(x, z) less ½ d log 2π, [B]."""
    loss = F.binary_cross_entropy_with_logits(decoder(z), x, reduction="none")
    return loss.flatten(1).sum(1) + 0.5 * z.square().sum(1)


def hmc(of: Callable, vae: Model, x: Tensor, T: int) -> Tensor:
    """T transitions from a draw of q(z|x)."""
    with torch.no_grad():
        mean, logvar = vae.encoder(x)
    z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
    U, grad = gradient(partial(of, x), z)
    draws = []
    for _ in range(T):
        p = torch.randn_like(z)
        start = U + 0.5 * p.square().sum(1)
        end, moved = z, p - 0.5 * STEP * grad
        for left in range(LEAPFROG, 0, -1):
            end = end + STEP * moved
            U_end, slope = gradient(partial(of, x), end)
            moved = moved - (0.5 * STEP if left == 1 else STEP) * slope
        accepted = torch.rand_like(U).log() < start - U_end - 0.5 * moved.square().sum(1)
        z = torch.where(accepted[:, None], end, z)
        U, grad = torch.where(accepted, U_end, U), torch.where(accepted[:, None], slope, grad)
        draws.append(z)
    return torch.stack(draws, 1)


def check_hmc(vae: Model, x: Tensor, ours: Callable) -> tuple[Tensor, Tensor]:
    result = ours()
    z = result.z[:, 0, -1]
    constant = 0.5 * z.shape[1] * math.log(2 * math.pi)
    return energy(vae.decoder, x, z) + constant, result.energy[:, 0, -1]


def skl(mean: Tensor, logvar: Tensor, mean_r: Tensor, logvar_r: Tensor) -> Tensor:
    """½KL(q‖r) + ½KL(r‖q), [B] nats."""
    distance, var, var_r = (mean - mean_r).square(), logvar.exp(), logvar_r.exp()
    return 0.25 * ((var + distance) / var_r + (var_r + distance) / var - 2).sum(1)


def ascend(of: Callable[[Tensor], Tensor], x: Tensor, steps: int) -> Tensor:
    """ℓ2 gradient ascent in the ball, from a random start, steps that shrink."""
    shape = (-1, *[1] * (x.ndim - 1))

    def length(t: Tensor) -> Tensor:
        return t.flatten(1).norm(dim=1).view(shape).clamp_min(1e-12)

    delta = torch.randn_like(x)
    point = (x + EPS * delta / length(delta)).clamp(0, 1)
    for step in range(steps):
        _, grad = gradient(of, point)
        delta = point + EPS * (1 - 0.99 * step / steps) * grad / length(grad) - x
        point = (x + delta * (EPS / length(delta)).clamp_max(1)).clamp(0, 1)
    return point


def latent(of: Callable, vae: Model, x: Tensor, steps: int) -> Tensor:
    with torch.no_grad():
        reference = vae.encoder(x)
    point = ascend(lambda p: of(p, *reference), x, steps)
    with torch.no_grad():
        return of(point, *reference)


def change(encoder: Callable, point: Tensor, *reference: Tensor) -> Tensor:
    return skl(*encoder(point), *reference)


def check_latent(vae: Model, x: Tensor, ours: Callable) -> tuple[Tensor, Tensor]:
    result = ours()
    return change(vae.encoder, result.x_adv, *vae.encoder(x)), result.objective


def distance(vae: Model, point: Tensor, centre: Tensor, noise: Tensor) -> Tensor:
    """Mean over S samples of ‖g(μ + σ⊙η) − centre‖, [B], for noise [B, S, d]."""
    mean, logvar = vae.encoder(point)
    z = mean[:, None] + torch.exp(0.5 * logvar)[:, None] * noise
    image = torch.sigmoid(vae.decoder(z.flatten(0, 1)))
    return (image.view(*noise.shape[:2], -1) - centre[:, None]).norm(dim=2).mean(1)


def damage(of: Callable, vae: Model, x: Tensor, steps: int) -> Tensor:
    """As max_damage: 8 samples in the search, 128 new ones to report."""
    d = vae.latent_dim
    with torch.no_grad():
        centre = torch.sigmoid(vae.decoder(vae.encoder(x)[0])).flatten(1)
    noise = x.new_empty(len(x), NOISE, d).normal_()
    point = ascend(lambda p: of(p, centre, noise), x, steps)
    total, at_once = x.new_zeros(len(x)), max(1, AT_ONCE // len(x))
    with torch.no_grad():
        for start in range(0, FRESH, at_once):
            count = min(at_once, FRESH - start)
            total += count * distance(vae, point, centre, x.new_empty(len(x), count, d).normal_())
    return total / FRESH


def check_damage(vae: Model, x: Tensor, ours: Callable) -> tuple[Tensor, Tensor]:
    """Both estimate it at our point, by other samples."""
    result = ours()
    with torch.no_grad():
        centre = torch.sigmoid(vae.decoder(vae.encoder(x)[0])).flatten(1)
        noise = x.new_empty(len(x), FRESH, vae.latent_dim).normal_()
        return distance(vae, result.x_adv, centre, noise), result.objective


def probability(g: Callable, vae: Model, x: Tensor, samples: int) -> Tensor:
    """The share of samples within RADIUS, as many at once as serve the caches."""
    with torch.no_grad():
        mean, logvar = vae.encoder(x)
        std, centre = torch.exp(0.5 * logvar), g(mean).flatten(1)
        hits, at_once = x.new_zeros(len(x)), max(1, AT_ONCE // len(x))
        for start in range(0, samples, at_once):
            count = min(at_once, samples - start)
            z = mean[:, None] + std[:, None] * x.new_empty(len(x), count, mean.shape[1]).normal_()
            image = g(z.flatten(0, 1)).view(len(x), count, -1)
            hits += ((image - centre[:, None]).norm(dim=2) <= RADIUS).sum(1)
        return hits / samples


def pixels(decoder: Callable, z: Tensor) -> Tensor:
    return torch.sigmoid(decoder(z))


def check_probability(vae: Model, x: Tensor, ours: Callable) -> tuple[Tensor, Tensor]:
    """From our own noise; a distance that lies on the radius may fall to either side."""
    result, S = ours(), ours().samples
    with torch.no_grad():
        mean, logvar = vae.encoder(x[:1])
        numbers = torch.arange(S, device=x.device)
        noise = normal(
            mean.shape[1], seed=0, index=torch.zeros_like(numbers), step=numbers,
            use=Use.LATENT, dtype=torch.float32,
        )  # fmt: skip
        image = pixels(vae.decoder, mean + torch.exp(0.5 * logvar) * noise).flatten(1)
        inside = (image - pixels(vae.decoder, mean).flatten(1)).norm(dim=1) <= RADIUS
    return inside.double().mean(0, keepdim=True), result.p[:1]


def by_vmap(vae: Model, x: Tensor) -> Tensor:
    def mean(image: Tensor) -> Tensor:
        return vae.encoder(image[None])[0][0]

    return torch.func.vmap(torch.func.jacrev(mean))(x).flatten(2)


def by_sum(vae: Model, x: Tensor) -> Tensor:
    """All rows in one backward pass per output, as outputs do not mix rows."""
    jacobian = torch.func.jacrev(lambda x: vae.encoder(x)[0].sum(0))(x)  # [d, B, ...]
    return jacobian.transpose(0, 1).flatten(2)


def by_loop(vae: Model, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    mean = vae.encoder(x)[0]
    grads = [torch.autograd.grad(m.sum(), x, retain_graph=True)[0] for m in mean.unbind(1)]
    return torch.stack(grads, 1).flatten(2)


def repeated(calls: int, function: Callable, *given: Any) -> Tensor:
    """The result of the last of so many calls."""
    for _ in range(calls - 1):
        function(*given)
    return function(*given)


def frobenius(jacobian: Callable, vae: Model, x: Tensor, calls: int) -> Tensor:
    return repeated(calls, lambda: jacobian(vae, x).norm(dim=(1, 2)))


def spectral(jacobian: Callable, vae: Model, x: Tensor, calls: int) -> Tensor:
    def norm() -> Tensor:
        J = jacobian(vae, x)
        return torch.linalg.eigvalsh(J @ J.mT)[:, -1].sqrt()

    return repeated(calls, norm)


def check_norm(of: Callable, vae: Model, x: Tensor, ours: Callable) -> tuple[Tensor, Tensor]:
    return of(by_vmap, vae, x, 1), ours()


JACOBIANS = {", vmap(jacrev)": by_vmap, ", jacrev of the sum": by_sum, ", a loop": by_loop}


def compiled(loop: Callable, of: Callable[[Model], Callable]) -> Callable:
    """From a model to the loop with its inner function compiled."""
    return lambda vae: partial(loop, torch.compile(of(vae), dynamic=False), vae)


def plain(loop: Callable, of: Callable[[Model], Callable]) -> dict[str, Callable]:
    return {"": lambda vae, x, amount: loop(of(vae), vae, x, amount)}


def loops_of(loop: Callable, of: Callable, check: Callable, unit: str, tolerance: float) -> Loops:
    return Loops(plain(loop, of), check, unit, compiled(loop, of), tolerance)


def norms_of(norm: Callable) -> Loops:
    by = {name: partial(norm, jacobian) for name, jacobian in JACOBIANS.items()}
    return Loops(by, partial(check_norm, norm), "calls")


LOOPS = {
    "hmc.sample": loops_of(
        hmc, lambda vae: partial(energy, vae.decoder), check_hmc, "T", 1e-3
    ),
    "latent": loops_of(
        latent, lambda vae: partial(change, vae.encoder), check_latent, "steps", 1e-3
    ),
    "max_damage": loops_of(
        damage, lambda vae: partial(distance, vae), check_damage, "steps", 0.1
    ),
    "robust_probability": loops_of(
        probability, lambda vae: partial(pixels, vae.decoder), check_probability, "S", 1e-3
    ),
    "frobenius_norm": norms_of(frobenius),
    "spectral_norm": norms_of(spectral),
}  # fmt: skip
