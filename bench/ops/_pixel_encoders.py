"""The convolutional encoder on a CPU: whitened Gram matrices, and a step of a latent attack."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import vaefast as vf
from vaefast import ops
from vaefast.bench.ops import _jacobian as jac
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.ops import _pixels as pixels
from vaefast.bench.ops import _stacks as stacks
from vaefast.bench.place import PRODUCTS, Place
from vaefast.bench.runner import Benchmark, Check, Provider, tensor_of

__all__ = ["attack", "grams"]

B, THEIRS = 256, 32  # inputs of the Gram matrices, of which a peer is timed on so many
AT_ONCE = 16  # inputs by hand: their cotangents stay near the cores
ROWS, OURS, STEPS = 500, 20, 4  # of an attack, and the steps that are timed, ours and theirs
EPS, ALPHA = 1.0, 0.1
ATTACK = {"eps": EPS, "norm": "l2", "divergence": "means", "alpha": ALPHA}


def grams(place: Place) -> Benchmark:
    """Each provider returns the matrices [n, 64, 64] of its inputs."""
    net = pixels.encoder(place)
    plain, last = stacks.stack(net), stacks.stack(net, channels_last=True)
    x = place.pixels(B, net.in_features)
    inv_std = place.normal(B, net.out_features, seed=1).exp_().clamp_(0.2, 5.0)
    some = x[:THEIRS].clone(), inv_std[:THEIRS].clone()
    compiled = place.compiled(jac.gram_by_func)
    d, D = net.out_features, net.in_features
    flop = nets.flop(net, B) * (1 + d) + B * d * (d + 1) * D
    product, scale = pixels.rate_of_products(flop)
    peers: dict[str, Provider] = {
        "vmap(jacrev)": lambda: jac.gram_by_func(*some, plain),
        "vmap(jacrev), channels last": lambda: jac.gram_by_func(*some, last),
        "torch.compile of vmap(jacrev)": lambda: compiled(*some, plain),
        "by hand, channels last": lambda: gram_by_hand(*some, last),
        **jx.jitted(jac.gram_by_jax, *some, *jx.network(plain)),
    }

    def ours() -> Tensor:
        return ops.net_jacobian_gram(x, net, inv_std=inv_std)

    def check(peer: Provider) -> tuple[Tensor, Tensor]:
        return tensor_of(peer()), ours()[:THEIRS]

    return Benchmark(
        op="net_jacobian_gram",
        case=f"convolutional encoder 1x28x28-64 B={B} whitened, theirs scaled up from {THEIRS}"
        f" {place.named()}",
        providers={"vaefast": ours, **product, **peers},
        checks={name: partial(check, peer) for name, peer in peers.items()},
        scale={**dict.fromkeys(peers, B / THEIRS), **scale},
        bytes=nets.weight_bytes(net) + 4 * B * (D + d**2),
        flop=flop,
        ceiling=PRODUCTS,
        at_least=2.0,
    )


def gram_by_hand(x: Tensor, inv_std: Tensor, net: stacks.Stack) -> Tensor:
    """All cotangents of some inputs pass back in one batch; J Jᵀ of what comes out."""
    parts = zip(x.split(AT_ONCE), inv_std.split(AT_ONCE))
    return torch.cat([_gram_of_some(*part, net) for part in parts])


def _gram_of_some(x: Tensor, inv_std: Tensor, net: stacks.Stack) -> Tensor:
    y, before = stacks.tape(x, net)
    d = inv_std.shape[1]
    each = [(kind, *(t.repeat_interleave(d, 0) for t in (a, h))) for kind, a, h in before]
    cotangents = torch.diag_embed(inv_std).view(len(x) * d, *y.shape[1:])
    J = stacks.back(cotangents, net, each).view(len(x), d, -1)
    return J @ J.mT


def attack(place: Place) -> Benchmark:
    """A step of ascent on ‖μ(x') − μ(x)‖² in an ℓ2 ball; each provider returns last points.

    Ours is the public function, its checks, its random start and what it finds out about the best
    point included.
    """
    vae = vf.models.ConvVAE().eval().requires_grad_(False)
    x = place.pixels(ROWS, 784).view(ROWS, 1, 28, 28)
    start = x + 0.01 * place.normal(*x.shape, seed=1)
    last = copy.deepcopy(vae).to(memory_format=torch.channels_last)

    def ours(steps: int) -> vf.attacks.AttackResult:
        return vf.attacks.latent(vae, x, steps=steps, **ATTACK)

    with torch.no_grad():
        reference = mean_of(vae)(x)
    compiled, mean, mean_last = place.compiled(step_by_func), mean_of(vae), mean_of(last)
    steps: dict[str, Callable[[Tensor], Tensor]] = {
        "autograd": lambda point: step(point, x, reference, mean),
        "autograd, channels last": lambda point: step(point, x, reference, mean_last),
        "torch.compile": lambda point: compiled(point, x, reference, mean),
        "torch.compile, channels last": lambda point: compiled(point, x, reference, mean_last),
    }
    flop = 2 * nets.flop(pixels.encoder(place), ROWS)
    product, scale = pixels.rate_of_products(flop)
    peers = {name: partial(_climbed, start, one) for name, one in steps.items()}
    return Benchmark(
        op="latent",
        case=f"convolutional encoder 1x28x28-64, a step for {ROWS} rows, scaled from {OURS} of ours"
        f" and {STEPS} of theirs {place.named()}",
        providers={"vaefast": lambda: ours(OURS).x_adv, **product, **peers},
        checks=_checks(vae, x, reference, steps, ours),
        scale={"vaefast": 1 / OURS, **dict.fromkeys(peers, 1 / STEPS), **scale},
        bytes=4 * 4 * x.numel(),
        flop=flop,
        ceiling=PRODUCTS,
        at_least=1.5,
        at_least_of={name: 1.2 for name in peers if name.startswith("torch.compile")},
    )


def _climbed(point: Tensor, one: Callable[[Tensor], Tensor]) -> Tensor:
    for _ in range(STEPS):
        point = one(point)
    return point


def _checks(
    vae: vf.VAE, x: Tensor, reference: Tensor, steps: dict[str, Callable], ours: Callable
) -> dict[str, Check]:
    """One step from our last points: theirs, and that of the engine's own parts."""
    result = ours(1)
    net = mean_network(vae)
    point = result.x_adv.flatten(1)

    def check(one: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        change = 2 * (ops.net_forward(point, net) - reference)
        grad = ops.net_vjp(point, change[:, None], net, full=True)[2][:, 0]
        moved = ops.pgd_step(point, grad, x.flatten(1), alpha=ALPHA, eps=EPS, norm="l2")
        return one(result.x_adv).flatten(1), moved

    return {name: partial(check, one) for name, one in steps.items()}


def mean_network(vae: vf.VAE):
    """μ of the posterior as the ops take it."""
    trunk = [layer for layer in vae.encoder.trunk if isinstance(layer, torch.nn.Conv2d)]
    layers = [*trunk, vae.encoder.mean[0]]
    net = pixels.encoder(Place("cpu"))
    return net._replace(weights=[m.weight for m in layers], biases=[m.bias for m in layers])


def mean_of(vae: vf.VAE) -> torch.nn.Module:
    return torch.nn.Sequential(vae.encoder.trunk, vae.encoder.mean)


def moved(point: Tensor, grad: Tensor, x: Tensor) -> Tensor:
    """A step of ALPHA along the gradient, the ball, the box, as one writes them."""
    length = grad.flatten(1).norm(dim=1)[:, None, None, None]
    change = point + ALPHA * grad / (length + 1e-12) - x
    size = change.flatten(1).norm(dim=1)[:, None, None, None]
    return (x + change * (EPS / size.clamp(min=EPS))).clamp(0, 1)


def step(point: Tensor, x: Tensor, reference: Tensor, mean: Callable) -> Tensor:
    with torch.enable_grad():
        point = point.detach().requires_grad_()
        loss = (mean(point) - reference).square().sum()
        (grad,) = torch.autograd.grad(loss, point)
    return moved(point.detach(), grad, x)


def step_by_func(point: Tensor, x: Tensor, reference: Tensor, mean: Callable) -> Tensor:
    """The same for torch.compile, in one graph."""
    grad = torch.func.grad(lambda p: (mean(p) - reference).square().sum())(point)
    return moved(point, grad, x)
