"""Which rows mixed, and one line that says it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaefast.runtime.reasons import listed, marked

if TYPE_CHECKING:
    from vaefast.hmc.diagnostics import Diagnostics

__all__ = ["judge", "verdict"]

R_HAT = 1.06  # with 200 effective draws of 2,000 the largest of 32 correct R-hats is about 1.05
EFFECTIVE = 100.0  # draws, of all chains together
BFMI = 0.3
DIVERGING = 0.01  # of the transitions after the warm-up


def judge(found: Diagnostics) -> dict[str, tuple[Tensor, Tensor]]:
    """What speaks against a row, the most telling first: masks [B] and how bad each row is [B].

    What is undefined (NaN) speaks against a row only where all of it is: a row without R-hat of a
    call with a single chain is judged by its effective draws.
    """
    r_hat, bulk, tail = (
        found.r_hat.nan_to_num(nan=-torch.inf).amax(1),
        found.ess_bulk.nan_to_num(nan=torch.inf).amin(1),
        found.ess_tail.nan_to_num(nan=torch.inf).amin(1),
    )
    effective, bfmi = torch.minimum(bulk, tail), found.e_bfmi.nan_to_num(nan=torch.inf).amin(1)
    share = found.divergent.double().sum(1) / max(found.transitions * found.divergent.shape[1], 1)
    constant = torch.isnan(found.ess_bulk).any(1) & ~found.failed
    return {
        "failed": (found.failed, found.failed.double()),
        "no draws that could be judged": (constant, constant.double()),
        "R-hat {:.2f}": (r_hat > R_HAT, r_hat),
        "divergent transitions {:.1%}": (share > DIVERGING, share),
        "E-BFMI {:.2f}": (bfmi < BFMI, -bfmi),
        "{:.0f} effective draws": (effective < EFFECTIVE, -effective),
    }


def verdict(found: Diagnostics) -> str:
    """How many rows mixed, and for each reason which did not, with the value of the worst."""
    rows, left = len(found.failed), torch.ones_like(found.failed)
    parts = []
    for text, (mask, badness) in judge(found).items():
        own = mask & left
        if not bool(own.any()):
            continue
        left = left & ~mask
        worst = abs(float(badness[own].max()))
        at_worst = text.format(worst) + (" at worst" if "{" in text and int(own.sum()) > 1 else "")
        parts.append(f"{listed(marked(own))} did not: {at_worst}")
    return "; ".join([f"{int(left.sum())} of {rows} rows mixed", *parts])
