"""The methods of :func:`vaefast.certify.margin`: each a request in, a result out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from vaefast.certify.anchors import Plan, anchor_margins, require_anchors
from vaefast.certify.best import best
from vaefast.certify.first_order import first_order
from vaefast.certify.guarantee import Guarantee
from vaefast.certify.lipschitz import certified_margins
from vaefast.certify.local import bounds_repeat, form_of, local_margins, require_local
from vaefast.certify.probability import drawn_promise
from vaefast.certify.request import Drawn, Request
from vaefast.certify.result import NOT_FINITE, MarginResult
from vaefast.models.prepare import Prepared
from vaefast.runtime import batching
from vaefast.runtime.reasons import reasons

__all__ = ["METHODS"]

TOO_WIDE = "the constants and σ(x) leave the event a probability of at most 1/2 at x itself"
NOT_LIKELY = "p_lower is at most 1/2"
NOT_BOUNDED = "no radius that was tried has a bound of the encoder below what p_lower tolerates"
NO_RADIUS = "the pilot found no radius that as many draws as were asked for would show"
TOO_LATE = "the seconds of the budget were over before its draws began"
FIRST_ORDER_DRAWS = 1000


def _first_order(prepared: Prepared, request: Request) -> MarginResult:
    drawn = request.drawn(prepared, FIRST_ORDER_DRAWS)
    found = first_order(prepared, drawn, request.method, request.precision)
    return replace(
        found, samples=drawn.samples, alpha=drawn.alpha, over=drawn.over, draws=drawn.mark
    )


def _local(prepared: Prepared, request: Request) -> MarginResult:
    require_local(prepared, "local")
    drawn = request.drawn(prepared, "auto")
    asked = request.form or "smaller"
    found = local_margins(prepared, drawn.p_lower, asked)
    form, why = form_of(prepared, asked)
    own = _certified(prepared, "local", found, drawn, bounds_repeat(prepared, asked))
    return replace(own, form=form, why_form=why)


def _anchors(prepared: Prepared, request: Request) -> MarginResult:
    require_local(prepared, "anchors")
    require_anchors(prepared)
    r, samples = request.radius(prepared), request.looks(prepared, "auto")[-1].samples
    plan = Plan(samples, request.level, request.seed or 0, request.deadline)
    found = anchor_margins(prepared, r, plan)
    used = found.samples.long()
    late, used = used < 0, used.clamp(min=0)
    promise = drawn_promise(prepared)
    drawn = Drawn(found.p_lower, used, request.total, "ieee", promise, request.inputs)
    own = bounds_repeat(prepared, "smaller")
    return _certified(prepared, "anchors", found.margin, drawn, own, late)


def _best(prepared: Prepared, request: Request) -> MarginResult:
    """Both certificates at half of α, so that both statements hold together."""
    require_local(prepared, "best")
    require_anchors(prepared)
    half = replace(request, alpha=0.5 * request.total)
    parts = [_local(prepared, half), _anchors(prepared, replace(half, form=None))]
    return replace(best(*parts), alpha=request.total)


def _certified(
    prepared: Prepared,
    method: str,
    bound: Tensor,
    drawn: Drawn,
    own: str,
    late: Tensor | None = None,
) -> MarginResult:
    p_lower, abstain = drawn.p_lower, ~(bound > 0)
    causes = {NOT_FINITE: p_lower.isnan()}
    causes |= {} if late is None else {TOO_LATE: late}
    causes |= {NO_RADIUS: drawn.samples == 0}
    causes |= {NOT_LIKELY: p_lower <= 0.5, NOT_BOUNDED: abstain}
    return MarginResult(
        bound.masked_fill(abstain, 0.0).masked_fill(p_lower.isnan(), torch.nan),
        p_lower,
        abstain,
        Guarantee.of_draws(drawn.over) if drawn.precision == "ieee" else Guarantee.ESTIMATE,
        method,
        batching.weakest(own, drawn.reproducible),
        reasons(len(bound), causes),
        samples=drawn.samples,
        alpha=drawn.alpha,
        over=drawn.over,
        draws=drawn.mark,
    )


def _lipschitz(prepared: Prepared, request: Request) -> MarginResult:
    found = certified_margins(prepared, request.r, request.variant)
    bound = torch.stack(list(found.bounds.values())).amax(0)
    abstain = ~(bound > 0)
    why = reasons(len(abstain), {NOT_FINITE: bound.isnan(), TOO_WIDE: abstain})
    return MarginResult(
        bound,
        found.p_lower,
        abstain,
        Guarantee.LIPSCHITZ,
        "lipschitz",
        batching.reproducible(True, (), prepared.x),
        why,
        found.event,
        found.bounds,
        found.constants,
    )


METHODS: dict[str, Callable[[Prepared, Request], MarginResult]] = {
    "first_order": _first_order,
    "whitened": _first_order,
    "local": _local,
    "anchors": _anchors,
    "best": _best,
    "lipschitz": _lipschitz,
}
