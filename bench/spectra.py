"""Spectra of the pullback metric on a CPU: whole public calls beside what a user writes.

The peers are torch.func's Jacobian of a batch with ``eigvalsh``, and the published loop: an image
at a time, a backward pass per latent that keeps its graph, a full singular value decomposition.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import vaefast as vf
from vaefast import data, geometry
from vaefast.bench.place import Place
from vaefast.bench.runner import Benchmark, Case, Check, Provider, tensor_of

__all__ = ["cases"]

INPUTS, CONVOLUTIONAL = 10_000, 1_000
SECONDS = {False: 4.0, True: 10.0}  # asked on two threads: of the mean's metric, of the stacked one
BATCHED, ONE_BY_ONE = "vmap(jacrev) + eigvalsh", "published loop"
AT_ONCE, SOME, FEW = 250, 500, 8  # inputs of a peer's batch, and those that it is timed on


def cases(place: Place) -> list[Case]:
    """One for each metric and network."""
    found: list[Case] = []
    for activation in ("relu", "tanh"):
        for std in (False, True):
            case = partial(mlp, place, activation, std)
            found.append((f"784-512-512-32 {activation}{' stacked' * std}", case))
    return [*found, ("published convolutional encoder", partial(convolutional, place))]


def mlp(place: Place, activation: str, std: bool) -> Benchmark:
    vae = vf.models.MLPVAE((1, 28, 28), (512, 512), 32, activation).eval()
    images, source = inputs(place, place.size(INPUTS, 16))
    what = "μ and σ stacked" if std else "μ"
    case = f"{len(images):,} {source} 784-512-512-32 {activation}, metric of {what}"
    return spectra(place, vae, images, std, case, SECONDS[std])


def convolutional(place: Place) -> Benchmark:
    vae = vf.models.ConvVAE().eval()
    images, source = inputs(place, place.size(CONVOLUTIONAL, 4))
    case = f"{len(images):,} {source} published convolutional encoder, metric of μ"
    return spectra(place, vae, images, False, case, float("nan"), batched=2.0)


def spectra(
    place: Place,
    vae: vf.VAE,
    x: Tensor,
    std: bool,
    case: str,
    seconds: float,
    batched: float = 1.5,
) -> Benchmark:
    """Each provider returns eigenvalues [n, m] of its inputs; the peers take a part of them."""
    d = (2 if std else 1) * (vae.latent_dim or 0)
    some, few = x[:SOME], x[:FEW]
    outputs = both_of(vae) if std else mean_of(vae)
    peers: dict[str, Provider] = {
        BATCHED: lambda: batched_spectra(outputs, some),
        ONE_BY_ONE: lambda: looped_spectra(outputs, few),
    }

    def ours(part: Tensor = x) -> Tensor:
        return geometry.pullback_spectrum(vae, part, std=std).eigenvalues

    def check(name: str) -> tuple[Tensor, Tensor]:
        theirs = tensor_of(peers[name]()).double()
        return theirs, ours(x[: len(theirs)])

    checks: dict[str, Check] = {name: partial(check, name) for name in peers}
    return Benchmark(
        op="pullback_spectrum",
        case=f"{case} {place.named()}",
        providers={"vaefast": ours, **peers},
        checks=checks,
        scale={BATCHED: len(x) / len(some), ONE_BY_ONE: len(x) / len(few)},
        bytes=4 * x.numel() + 8 * len(x) * d,
        flop=0,
        tolerance=1e-3,
        at_least=batched,
        at_least_of={ONE_BY_ONE: 20.0},
        seconds_at_most=seconds,
    )


def inputs(place: Place, count: int) -> tuple[Tensor, str]:
    """Images [count, 1, 28, 28], of Fashion-MNIST where it is at hand."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = data.load("fashion-mnist").x_train[:count]
        return found.contiguous(), "Fashion-MNIST images"
    except (OSError, ValueError):
        return place.pixels(count, 784).view(count, 1, 28, 28), "random images"


def mean_of(vae: vf.VAE) -> Callable[[Tensor], Tensor]:
    return lambda x: vae.encode(x)[0]


def both_of(vae: vf.VAE) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.cat(vae.posterior(x), dim=1)


def batched_spectra(outputs: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """In batches, which keeps the Jacobians near the cores."""

    def one(image: Tensor) -> Tensor:
        return outputs(image[None])[0]

    found = []
    with torch.no_grad():
        for part in x.split(AT_ONCE):
            J = torch.func.vmap(torch.func.jacrev(one))(part).flatten(2)
            found.append(torch.linalg.eigvalsh(J @ J.mT).flip(1))
    return torch.cat(found)


def looped_spectra(outputs: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """As the released code of Khan and Storkey goes about it."""
    found = []
    for image in x:
        point = image[None].clone().requires_grad_()
        y = outputs(point)[0]
        rows = [torch.autograd.grad(one, point, create_graph=True)[0].flatten() for one in y]
        _, singular, _ = torch.linalg.svd(torch.stack(rows).mT.detach(), full_matrices=True)
        found.append(singular.square())
    return torch.stack(found)
