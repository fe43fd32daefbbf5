"""The models of the table of certificates, trained anew."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

import vaefast as vf
from vaefast import training as t

__all__ = [
    "ENCODERS",
    "IMAGES",
    "OBJECTIVES",
    "ROWS",
    "SHORT",
    "Trained",
    "by_objective",
    "train",
]

LATENTS, BATCH, LR = 10, 128, 1e-3
EPOCHS = 3  # of ENCODERS, on all training rows
ROWS, SHORT = 12_000, 8  # rows and epochs of OBJECTIVES
SMALL = (128, 128)


class Trained(NamedTuple):
    """An encoder of the table.

    Args:
        hidden: widths.
        activation: of every hidden layer.
        beta: weight of the KL term.
        fixed: whether σ does not depend on x; it is learned all the same.
    """

    hidden: tuple[int, ...]
    activation: str
    beta: float = 1.0
    fixed: bool = True


ENCODERS: dict[str, Trained] = {
    "relu-256x2": Trained((256, 256), "relu"),
    "tanh-256x2": Trained((256, 256), "tanh"),
    "tanh-512x2-beta4": Trained((512, 512), "tanh", 4.0),
    "relu-256x3": Trained((256, 256, 256), "relu"),
    "tanh-256x3": Trained((256, 256, 256), "tanh"),
    "relu-256x2-amortised": Trained((256, 256), "relu", fixed=False),
    "tanh-256x2-amortised": Trained((256, 256), "tanh", fixed=False),
}
IMAGES: dict[str, dict[str, int]] = {  # of MNIST: arguments of ConvVAE
    "convolutional": {},  # as published
    "convolutional-small": {"channels": 8, "latent": 16},
}
OBJECTIVES: dict[str, t.Objective] = {
    "elbo": t.BetaELBO(),
    "beta4": t.BetaELBO(4.0),
    "mixup": t.Mixup(),
    "smooth": t.Smooth(),
    "fisher": t.Fisher(),
    "adversarial": t.Adversarial(),
    "lipschitz": t.BetaELBO(),  # of a LipschitzVAE
}


def train(folder: Path, x: Tensor, names: list[str], *, epochs: int | None = None) -> list[Path]:
    """Train the models of these names (those of Fashion-MNIST if none) on x, save them by name."""
    names = names or [*ENCODERS, *OBJECTIVES]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names:
        start = time.monotonic()
        if name in ENCODERS:
            vae = _encoder(ENCODERS[name], x, epochs or EPOCHS)
        elif name in IMAGES:
            vae = vf.models.ConvVAE(x.shape[1:], **IMAGES[name])
            _fit(vae, x, 1.0, epochs or EPOCHS)
        else:
            vae = by_objective(name, x[:ROWS], epochs or SHORT)
        paths.append(folder / f"{name}.safetensors")
        vf.models.save(vae, paths[-1])
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    return paths


def _encoder(case: Trained, x: Tensor, epochs: int) -> vf.VAE:
    std = {"fixed_std": 0.3} if case.fixed else {}
    vae = vf.models.MLPVAE(x.shape[1:], case.hidden, LATENTS, case.activation, **std)
    _as_torch_does(vae)
    if case.fixed:
        _learned(vae, True)
    _fit(vae, x, case.beta, epochs)
    if case.fixed:
        _learned(vae, False)
    return vae.eval()


def _fit(vae: vf.VAE, x: Tensor, beta: float, epochs: int) -> None:
    options = {"epochs": epochs, "batch_size": BATCH, "lr": LR, "validation": 0.02}
    t.fit(vae, x, objective=t.BetaELBO(beta), progress=False, **options)
    vae.eval()


def by_objective(
    name: str, x: Tensor, epochs: int, seed: int = 0, promise: dict[str, float] | None = None
) -> vf.VAE:
    """A small model by one of OBJECTIVES.

    ``promise``: ``certified_radius`` and ``r``, from which a LipschitzVAE's constants are chosen.
    """
    options = {"epochs": epochs, "batch_size": BATCH, "lr": LR, "progress": False, "seed": seed}
    if name == "lipschitz":
        own = vf.models.LipschitzVAE(x.shape[1:], hidden=SMALL, latent=LATENTS, seed=seed)
        t.fit(own, x, objective=OBJECTIVES[name], **options, **(promise or {}))
        return own.eval()
    vae = vf.models.MLPVAE(x.shape[1:], SMALL, LATENTS, "relu")
    _as_torch_does(vae, seed)
    t.fit(vae, x, objective=OBJECTIVES[name], **options)
    return vae.eval()


def _as_torch_does(vae: vf.VAE, seed: int = 0) -> None:
    """Initial weights of ``nn.Linear``, about half as large as Xavier's here."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in vae.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()


def _learned(vae: vf.models.MLPVAE, yes: bool) -> None:
    """Make the fixed log-variance a parameter, or a buffer again."""
    value = vae.encoder.logvar.detach().clone()
    del vae.encoder.logvar
    if yes:
        vae.encoder.logvar = nn.Parameter(value)
    else:
        vae.encoder.register_buffer("logvar", value)
