"""The larger of margins that say the same kind of thing about the same inputs."""

from __future__ import annotations

from collections.abc import Sequence

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

    The error probability of the larger is the sum of both, or where they share the draws of one
    ``probability`` the larger of both: it is wrong only if that one bound is.

    Returns:
        :class:`MarginResult`, its ``method`` naming all of them; a row abstains where all do.
        ``p_lower`` is that of the margin that was taken.

    Raises:
        TypeError: something that is no :class:`MarginResult`.
        ValueError: none, other rows, two events, two guarantees, or alphas of other runs.
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
        if result.over != first.over:
            raise ValueError(
                f"{name} shares alpha among {result.over} inputs, the first among {first.over}; "
                "ask for both with the same over"
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
        samples=_summed(margins),
        alpha=_total(margins),
        form=", ".join(dict.fromkeys(m.form for m in margins if m.form)),
        why_form="; ".join(dict.fromkeys(m.why_form for m in margins if m.why_form)),
        over=first.over,
        draws=first.draws if all(m.draws == first.draws for m in margins) else "",
    )


def _summed(margins: Sequence[MarginResult]) -> Tensor | None:
    """Draws of all of them, those that are shared once."""
    given = {m.draws or str(i): m.samples for i, m in enumerate(margins) if m.samples is not None}
    return torch.stack(list(given.values())).sum(0) if given else None


def _total(margins: Sequence[MarginResult]) -> float | None:
    """α of all statements together: the union bound over those that share no draws."""
    shared: dict[str, float] = {}
    for number, result in enumerate(margins):
        if result.alpha is not None:
            mark = result.draws or str(number)
            shared[mark] = max(result.alpha, shared.get(mark, 0.0))
    return sum(shared.values()) if shared else None
