"""What a first real batch shows: outputs that contradict what a VAE was told they are."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaefast.models import context as contexts
from vaefast.models.context import Context
from vaefast.models.likelihoods import within_unit_interval

if TYPE_CHECKING:
    from vaefast.models.vae import VAE

__all__ = ["check", "doubts"]

ROWS = 16  # of the batch that are looked at
WARNINGS = {
    "box": (
        "this model takes pixels below 0 too, and x has none; if x is in [0, 1] and the model "
        "wants [-1, 1], pass 2 * x - 1"
    ),
    "logits": (
        "decode(z) returns logits that all lie in [0, 1]; if they are probabilities, pass "
        'decoder_output="probabilities", else "logits"'
    ),
    "logvar": (
        "encode(x) returns a log-variance that is never negative (σ ≥ 1 everywhere); if it is a "
        'standard deviation or a variance, pass encoder_output="std" or "var", else "logvar"'
    ),
}
COLLAPSED = 1e-3  # |log σ²| up to which a posterior is the prior, a legal one


def doubts(vae: VAE, decoder_output: str | None, encoder_output: str | None) -> tuple[str, ...]:
    """What is to be checked: what nobody said, so that it was guessed."""
    logits = decoder_output is None and vae.decoder_output == "logits"
    logvar = encoder_output is None and not vae.fixed_std
    heads = vae.likelihood == "gaussian" and vae._pair_is_open
    guessed = {"logits": logits, "logvar": logvar, "heads": heads, "box": True}
    return tuple(name for name, is_guess in guessed.items() if is_guess)


@torch.no_grad()
def check(
    vae: VAE,
    x: Tensor,
    context: Context,
    doubts: tuple[str, ...],
    moments: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Warn of each doubt that no finite row of the first few refutes, two at a time.

    ``moments`` are those of the first two rows, where somebody has them.
    """
    left, seen = set(doubts), False
    scale = False  # whether some log σ² is far enough from 0 not to be a collapsed posterior's
    for start in range(0, min(len(x), ROWS), 2):
        pair = slice(start, min(start + 2, ROWS))
        part, conditions = x[pair], contexts.rows(context, pair)
        if not bool(part.isfinite().all()):
            continue
        seen = True
        known = moments if start == 0 else None
        mean, logvar = (t[: len(part)] for t in known or vae.encode(part, conditions))
        scale = scale or bool(logvar.abs().max() > COLLAPSED)
        if not bool((logvar >= 0).all()):
            left.discard("logvar")
        if "logits" in left and not within_unit_interval(vae.decode(mean, conditions)):
            left.discard("logits")
        if "heads" in left:
            vae.decode(mean, conditions)  # says whether one or two tensors come
            left.discard("heads")
        if vae.box is None or vae.box[0] >= 0.0 or not bool((part >= 0).all()):
            left.discard("box")
        if not left:
            return
    for name in sorted(left - (set() if scale else {"logvar"})) if seen else ():
        warnings.warn(WARNINGS[name], stacklevel=4)
