"""``net_chain`` in plain PyTorch: T transitions of Hamiltonian Monte Carlo on a decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vaefast.functional.chain import Chain, chain, kept
from vaefast.functional.rows import chains, chunked, finite, of_chains, part
from vaefast.reference.net_potential import Target
from vaefast.reference.net_trajectory import on_target

if TYPE_CHECKING:
    from vaefast.ops.net_chain import Call

__all__ = ["net_chain"]

DRAWING_BYTES = 64  # per latent, while its momentum is drawn


def net_chain(call: Call) -> Chain:
    """Transitions ``first_step`` to ``first_step + steps − 1`` from (z, U, grad).

    A row with NaN or infinity in its inputs has U = NaN: it never moves, and each of its
    transitions is divergent.
    """
    z, U, grad = call.z, call.U, call.grad
    target, count = Target.of(call), chains(z, call.x)
    span = {"first_step": call.first_step, "steps": call.steps, "thin": call.thin}

    def run(rows: slice) -> Chain:
        own, posterior = of_chains(rows, count), target.rows(rows)
        mass, root = part(call.inv_mass, rows), part(call.root, rows)
        good = (posterior.good() & finite(call.step[rows], mass, root)).repeat_interleave(count)
        good = good & finite(z[own], U[own], grad[own])
        result = chain(
            on_target(posterior, mass, root, call.leapfrog),
            z[own].clone(),  # no result shares memory with an input, not even at steps=0
            torch.where(good, U[own], torch.nan),
            grad[own].clone(),
            step=call.step[rows],
            inv_mass=mass,
            jitter=call.jitter,
            seed=call.seed,
            index=call.index[rows],
            **span,
        )
        return Chain(*(t.contiguous() for t in result))

    draws = kept(**span) * (z.shape[1] * z.element_size() + U.element_size())
    of_chain = draws + DRAWING_BYTES * z.shape[1]
    return Chain(*chunked(run, len(call.x), target.bytes_per_input(z) + count * of_chain))
