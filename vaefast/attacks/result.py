"""What every attack returns."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass

from torch import Tensor

from vaefast.runtime.reasons import Reasons, listed

__all__ = ["NO_OBJECTIVE", "NO_X", "STILL", "AttackResult", "AttackWarning", "warn_of"]

NO_X = "x holds NaN or infinity"
NO_OBJECTIVE = "the objective was not finite at any point"
STILL = (
    "no gradient: it was 0, or not finite, at every step, so x_adv is a random start and says "
    "nothing about robustness (rounding, steps or dead units in the encoder)"
)


class AttackWarning(UserWarning):
    """An attack could not do what it was asked to, for some rows or for all."""


@dataclass(frozen=True)
class AttackResult:
    """Adversarial inputs and how strong they are; larger ``objective`` is stronger.

    With ``keep="all"`` every restart is returned: ``x_adv`` is [B, R, *event], ``objective`` and
    ``perturbation_norm`` are [B, R], ``history`` is [steps+1, B, R].

    Attributes:
        x_adv: [B, *event] in x's dtype; NaN in failed rows that have no finite objective.
        objective: [B] float64, what the attack maximised, evaluated at ``x_adv`` itself.
        perturbation_norm: [B] float64, the norm of ``x_adv - x`` in the attack's norm, pixel scale.
        best_restart: [B] int64, the restart that ``x_adv`` came from; -1 where there is none.
        failed: [B] bool, the row says nothing about robustness; ``reasons`` says why.
        history: [steps+1, B] float64, the objective at every iterate of the best restart (the raw
            values, not the best so far; entry 0 is the random start), or None.
        reproducible: how far a row depends on the batch it stood in: ``"bits"``, ``"blocks"`` or
            ``"round-off"``, see :func:`vaefast.runtime.batching.reproducible`.
        reasons: of each row why it ``failed``, "" where it did not: its input or its objective was
            not finite, or no restart ever had a gradient to step along.
        nonfinite_gradients: [B] int64, at how many steps, of all restarts, the gradient had an
            entry that was not finite; such an entry counted as 0. None: there are no steps.
    """

    x_adv: Tensor
    objective: Tensor
    perturbation_norm: Tensor
    best_restart: Tensor
    failed: Tensor
    history: Tensor | None = None
    reproducible: str = "round-off"
    reasons: Reasons = ()
    nonfinite_gradients: Tensor | None = None


def warn_of(result: AttackResult, attack: str, *, stacklevel: int = 4) -> None:
    """One warning for each thing that went wrong in some row.

    Args:
        result: of the attack.
        attack: its name, for the message.
        stacklevel: of the frame that the warning is about, as for :func:`warnings.warn`.
    """
    rows = len(result.failed)
    for reason in Counter(reason for reason in result.reasons if reason):
        which = [row for row, own in enumerate(result.reasons) if own == reason]
        _warn(
            f"{attack}: {len(which)} of {rows} rows failed ({listed(which)}): {reason}", stacklevel
        )
    count = result.nonfinite_gradients
    hopeless = [row for row, own in enumerate(result.reasons) if own in (NO_X, NO_OBJECTIVE)]
    met = [] if count is None or not count.any() else count.nonzero()[:, 0].tolist()
    if met := [row for row in met if row not in hopeless]:
        _warn(
            f"{attack}: in {len(met)} of {rows} rows ({listed(met)}) gradients had entries that "
            "are not finite; they counted as 0, see nonfinite_gradients",
            stacklevel,
        )


def _warn(message: str, stacklevel: int) -> None:
    warnings.warn(message, AttackWarning, stacklevel=stacklevel + 1)
