"""The stages of an audit that state margins: of first order, certified, and an attack's."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vaefast import attacks, certify
from vaefast.audit.blocks import by_blocks
from vaefast.audit.job import Job
from vaefast.certify.heads import why_not
from vaefast.certify.level import inputs_of
from vaefast.certify.local import takes_seconds
from vaefast.models.prepare import prepare
from vaefast.runtime.reasons import Reasons, counted

__all__ = ["Margins", "empirical", "margins"]

REACH = 4.0  # of the whitened margin, where the search for a break ends
SEARCH_STARTS, SEARCH_STEPS = 3, 30  # at each of up to 13 radii, and 4 more in between


@dataclass(frozen=True)
class Margins:
    """Probabilities and margins, [B] each, by their names in the table; and their promise."""

    robust_probability: Tensor
    robust_probability_lower: Tensor
    margin_first_order: Tensor
    margin_whitened: Tensor
    margin_abstain: Tensor
    guarantee: certify.Guarantee
    reasons: Reasons  # why each row abstains, "" where it does not
    margin_certified: Tensor | None  # NaN of inputs that got none
    certificate: certify.Guarantee | None  # of the certified margins
    form: str = ""  # of the encoder's bound behind them
    why_form: str = ""  # why that is not the one that is taken by default

    @property
    def values(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    @property
    def abstaining(self) -> str:
        """How many inputs have no margin and why, "" where all have one."""
        count = sum(map(bool, self.reasons))
        inputs = f"{count} of {len(self.reasons)} inputs have no margin"
        return f"{inputs}: {counted(self.reasons)}" if count else ""


@torch.no_grad()
def margins(job: Job, r: float, notes: list[str]) -> Margins:
    """The probability that a reconstruction stays within r, and the margins that follow.

    All rest on the same draws. A certified one is among them where the encoder can be bounded, of
    the first inputs where that takes seconds each; ``notes`` says where some have none, and why.
    """
    settings, count = job.settings, _certifiable(job, notes)
    options: dict[str, Any] = {"samples": settings.samples, "alpha": settings.alpha}
    shared = inputs_of(settings.over, len(job.x))
    options |= {"seed": settings.seed, "over": shared if shared > 1 else "input"}

    def rows(rows: slice, index: Tensor) -> Margins:
        vae, x = job.vae, job.x[rows]
        found = drawn = certify.robust_probability(vae, x, r, index=index, **options)
        first_order, whitened = (
            certify.margin(vae, x, r, method=method, probability=found, index=index)
            for method in ("first_order", "whitened")
        )
        certified = torch.full_like(whitened.margin, torch.nan)
        sound, own = None, max(0, min(count - rows.start, len(x)))
        if own:
            part, place = x[:own], index[:own]
            if own < len(x):  # the same draws again, of these rows alone
                found = certify.robust_probability(vae, part, r, index=place, **options)
            given: dict[str, Any] = {"probability": found, "index": place}
            sound = certify.margin(vae, part, r, method="local", **given)
            certified[:own] = sound.margin
        return Margins(
            robust_probability=drawn.p,
            robust_probability_lower=drawn.p_lower,
            margin_first_order=first_order.margin,
            margin_whitened=whitened.margin,
            margin_abstain=whitened.abstain,
            guarantee=whitened.guarantee,
            reasons=whitened.reasons,
            margin_certified=certified if count else None,
            certificate=None if sound is None else sound.guarantee,
            form="" if sound is None else sound.form,
            why_form="" if sound is None else sound.why_form,
        )

    with job.stages.stage("measure  margins", len(job.x), "samples", settings.samples) as advance:
        return by_blocks(rows, job.x, advance)


def _certifiable(job: Job, notes: list[str]) -> int:
    """How many inputs, the first ones, get a certified margin."""
    inputs = len(job.x)
    prepared = prepare(job.vae, job.x[:1], half="refuse")
    if reason := why_not(prepared.maps):
        notes.append(f"No certified margins: {reason}.")
        return 0
    if not takes_seconds(prepared):
        return inputs
    count = min(job.settings.certified, inputs)
    if count < inputs:
        notes.append(
            f"Certified margins are of the first {count} of {inputs} inputs: the encoder is no "
            "MLP, and each takes some seconds; --certified N asks for N."
        )
    return count


def empirical(job: Job, r: float, found: Margins) -> Tensor:
    """The smallest radius at which an attack broke each of the first inputs; [B] float64.

    NaN where none was searched for, infinite where none was found up to four whitened margins. The
    search is not held to the box, as no margin is.
    """
    n = min(job.settings.empirical, len(job.x))
    margin = torch.full_like(found.margin_whitened, torch.nan)
    if not n:
        return margin
    # where first order says nothing the search goes as far as by default
    widest = 0.25 * math.sqrt(job.x[0].numel())
    most = (REACH * found.margin_whitened).nan_to_num(widest, widest)
    most = torch.where(most > 0, most, widest)
    options: dict[str, Any] = {"seed": job.settings.seed, "low": -math.inf, "high": math.inf}
    options |= {"steps": SEARCH_STEPS, "restarts": SEARCH_STARTS}

    def rows(rows: slice, index: Tensor) -> Tensor:
        own = job.x[:n][rows]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", attacks.AttackWarning)
            return certify.empirical_margin(
                job.vae, own, r, r_max=most[:n][rows], index=index, **options
            ).margin

    work = SEARCH_STEPS * SEARCH_STARTS
    with job.stages.stage("measure  empirical margins", n, "attack steps", work) as advance:
        margin[:n] = by_blocks(rows, job.x[:n], advance)
    return margin
