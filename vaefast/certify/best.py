"""The larger of margins that say the same kind of thing about the same inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast import checks
from vaefast.certify.events import require_one_event
from vaefast.certify.result import NOT_FINITE, MarginResult
from vaefast.runtime import batching
from vaefast.runtime.reasons import reasons

__all__ = ["best"]


def best(*margins: MarginResult) -> MarginResult:
    """The largest margin of each input, of several results on the same inputs and r.

    Equivalent to, for the numbers alone::

        torch.stack([m.margin for m in margins]).nan_to_num(0.0).amax(0)

    Args:
        margins: at least one result of :func:`margin` on the same inputs, of one event and one
            guarantee.

    Returns:
        :class:`MarginResult`, its ``method`` naming all of them; a row abstains where all do.
        ``p_lower`` is that of the margin that was taken.

    Raises:
        TypeError: something that is no :class:`MarginResult`.
        ValueError: none, other rows, two events, or two guarantees.
    """
    if not margins:
        raise ValueError("best takes at least one margin, got none")
    for result in margins:
        if not isinstance(result, MarginResult):
            raise TypeError(f"best takes results of certify.margin, got {type(result).__name__}")
    first = margins[0]
    named = {f"margin {i} ({m.method})": m for i, m in enumerate(margins)}
    event = require_one_event(**{name: m.event for name, m in named.items()})
    for name, result in named.items():
        checks.shape(result.margin, name, first.margin.shape, "the first margin")
        if result.guarantee != first.guarantee:
            raise ValueError(
                f'{name} is "{result.guarantee}", the first "{first.guarantee}"; the larger of the '
                "two would be neither, so compare margins of one guarantee"
            )
    stacked = torch.stack([m.margin for m in margins])
    value, which = stacked.nan_to_num(-1.0, torch.inf).max(0)
    rows = torch.arange(len(value), device=value.device)
    bad = value < 0
    abstain = torch.stack([m.abstain for m in margins]).all(0)
    why = reasons(len(value), {NOT_FINITE: bad})
    why = tuple(w or (first.reasons[i] if abstain[i] else "") for i, w in enumerate(why))
    return MarginResult(
        margin=value.masked_fill(bad, torch.nan),
        p_lower=torch.stack([m.p_lower for m in margins])[which, rows],
        abstain=abstain,
        guarantee=first.guarantee,
        method=", ".join(dict.fromkeys(m.method for m in margins)),
        reproducible=batching.weakest(*(m.reproducible for m in margins)),
        reasons=why,
        event=event,
        samples=_summed([m.samples for m in margins]),
        alpha=_total([m.alpha for m in margins]),
        form=", ".join(dict.fromkeys(m.form for m in margins if m.form)),
        why_form="; ".join(dict.fromkeys(m.why_form for m in margins if m.why_form)),
    )


def _summed(samples: list[Tensor | None]) -> Tensor | None:
    """Draws of all of them."""
    given = [s for s in samples if s is not None]
    return torch.stack(given).sum(0) if given else None


def _total(levels: list[float | None]) -> float | None:
    """α of all statements together, by the union bound."""
    given = [level for level in levels if level is not None]
    return sum(given) if given else None
