"""``net_chain`` in plain PyTorch: T transitions of Hamiltonian Monte Carlo on an MLP decoder."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast.functional.chain import Chain, chain, kept
from vaefast.functional.rows import chains, chunked, finite, of_chains, part
from vaefast.reference.net_potential import Target
from vaefast.reference.net_trajectory import on_target
from vaefast.types import Network

__all__ = ["net_chain"]

DRAWING_BYTES = 64  # per latent, while its momentum is drawn


def net_chain(
    z: Tensor,
    U: Tensor,
    grad: Tensor,
    x: Tensor,
    net: Network,
    *,
    likelihood: str,
    obs_std: float = 1.0,
    step: Tensor,
    inv_mass: Tensor | None = None,
    leapfrog: int,
    jitter: float = 0.0,
    seed: int = 0,
    index: Tensor,
    first_step: int = 0,
    steps: int,
    thin: int = 0,
    precision: str = "ieee",
) -> Chain:
    """Transitions ``first_step`` to ``first_step + steps − 1`` from (z, U, grad).

    A row with NaN or infinity in its inputs has U = NaN: it never moves, and each of its
    transitions is divergent. ``precision`` is what a backend may stoop to; this one always
    computes in the input dtype.
    """
    target = Target(x, net, likelihood, obs_std)
    count = chains(z, x)

    def run(rows: slice) -> Chain:
        own, mass = of_chains(rows, count), part(inv_mass, rows)
        good = finite(x[rows], step[rows], mass).repeat_interleave(count)
        good = good & finite(z[own], U[own], grad[own])
        return chain(
            on_target(target.rows(rows), mass, leapfrog),
            z[own].clone(),  # no result shares memory with an input, not even at steps=0
            torch.where(good, U[own], torch.nan),
            grad[own].clone(),
            step=step[rows],
            inv_mass=mass,
            jitter=jitter,
            seed=seed,
            index=index[rows],
            first_step=first_step,
            steps=steps,
            thin=thin,
        )

    draws = kept(first_step, steps, thin) * (z.shape[1] * z.element_size() + U.element_size())
    of_chain = draws + DRAWING_BYTES * z.shape[1]
    return Chain(*chunked(run, len(x), target.bytes_per_input(z) + count * of_chain))
