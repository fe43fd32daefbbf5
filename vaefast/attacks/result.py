"""What every attack returns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from vaefast.runtime.reasons import Reasons, listed, marked

__all__ = ["NO_OBJECTIVE", "NO_X", "STILL", "AttackResult", "AttackWarning", "faults", "warn_of"]

NO_X = "x holds NaN or infinity"
NO_OBJECTIVE = "the objective was not finite at any point"
STILL = (
    "no gradient at any step; x_adv is a random start and says nothing about robustness "
    "(rounding or dead units in the encoder)"
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
            values, not the best so far; entry 0 is the random start), or None. NaN where an attack
            through the defence took the point of the undefended one.
        reproducible: how far a row depends on the batch it stood in: ``"bits"``, ``"blocks"`` or
            ``"round-off"``, see :func:`vaefast.runtime.batching.reproducible`.
        reasons: of each row why it ``failed``, "" where it did not: its input or its objective was
            not finite, or no restart ever had a gradient to step along.
        nonfinite_gradients: [B] int64, at how many steps, of all restarts, the gradient had an
            entry that was not finite; such an entry counted as 0. None: there are no steps.
        gradient: of an attack through the defence, which gradient found each row's point:
            ``"chain"``, ``"last"``, ``"posterior"``, ``"spsa"`` or ``"undefended"``; () of other
            attacks.
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
    gradient: tuple[str, ...] = ()


class Told(Protocol):
    """A result that says why its rows failed and how many gradients were not finite."""

    @property
    def reasons(self) -> Reasons: ...

    @property
    def nonfinite_gradients(self) -> Tensor | None: ...


def faults(result: Told) -> list[str]:
    """What went wrong in some rows, a line for each kind."""
    own, count = result.reasons, result.nonfinite_gradients
    lines = []
    for reason in dict.fromkeys(reason for reason in own if reason):
        which = [row for row, given in enumerate(own) if given == reason]
        lines.append(f"{len(which)} of {len(own)} rows failed ({listed(which)}): {reason}")
    met = [] if count is None or not count.any() else marked(count > 0)
    if met := [row for row in met if own[row] not in (NO_X, NO_OBJECTIVE)]:
        lines.append(
            f"in {len(met)} of {len(own)} rows ({listed(met)}) gradients had entries that are not "
            "finite; they counted as 0, see nonfinite_gradients"
        )
    return lines


def warn_of(result: Told, attack: str, *, stacklevel: int = 4) -> None:
    """One warning for each of the faults.

    Args:
        result: of the attack.
        attack: its name, for the message.
        stacklevel: of the frame that the warning is about, as for :func:`warnings.warn`.
    """
    for fault in faults(result):
        warnings.warn(f"{attack}: {fault}", AttackWarning, stacklevel=stacklevel)
