"""What every attack returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["AttackResult"]


@dataclass(frozen=True)
class AttackResult:
    """Adversarial inputs and how strong they are; larger ``objective`` is stronger.

    With ``keep="all"`` every restart is returned: ``x_adv`` is [B, R, *event], ``objective`` and
    ``perturbation_norm`` are [B, R], ``history`` is [steps+1, B, R].

    Attributes:
        x_adv: [B, *event] in x's dtype; NaN in failed rows.
        objective: [B] float64, what the attack maximised, evaluated at ``x_adv`` itself.
        perturbation_norm: [B] float64, the norm of ``x_adv - x`` in the attack's norm, pixel scale.
        best_restart: [B] int64, the restart that ``x_adv`` came from; -1 in failed rows.
        failed: [B] bool, no restart of the row ever had a finite objective (NaN in its input).
        history: [steps+1, B] float64, the objective at every iterate of the best restart (the raw
            values, not the best so far; entry 0 is the random start), or None.
        reproducible: how far a row depends on the batch it stood in: ``"bits"``, ``"blocks"`` or
            ``"round-off"``, see :func:`vaefast.runtime.batching.reproducible`.
    """

    x_adv: Tensor
    objective: Tensor
    perturbation_norm: Tensor
    best_restart: Tensor
    failed: Tensor
    history: Tensor | None = None
    reproducible: str = "round-off"
