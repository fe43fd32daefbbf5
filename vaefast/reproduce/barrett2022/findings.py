"""What holds and what does not, in sentences made from the numbers alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from vaefast.reproduce.barrett2022.inside import ATTACKS
from vaefast.reproduce.barrett2022.measure import EVENTS, Measured
from vaefast.reproduce.barrett2022.run import Reproduction
from vaefast.reproduce.barrett2022.summary import above, broken, larger, middle, rank
from vaefast.reproduce.sentences import difference, joined

__all__ = ["findings"]

SAID = {"fixed": "the fixed centre", "two": "two draws"}
Number = Callable[[Measured], float]
TERMS: dict[str, Number] = {
    "the certified margin": lambda m: float(m.certified_two.mean()),
    "the margin that an attack leaves (median)": lambda m: middle(m.attacked_two),
}
FIT: dict[str, Number] = {
    "the bound of log p": lambda m: float(m.elbo.mean()),
    "the squared error": lambda m: float(m.error.mean()),
}


def findings(found: Reproduction) -> list[str]:
    """The paragraph, a sentence each; the published claims and their verdicts come last."""
    by_constant = {k: rank(found.of("constant"), v) for k, v in {**TERMS, **FIT}.items()}
    by_std = {k: rank(found.of("std"), v) for k, v in TERMS.items()}
    signs = _over_standard(found)
    return [
        *(_sound(found, event) for event in EVENTS),
        _certified(found),
        f"Spearman's correlation of L with {_listed(by_constant)}.",
        f"That of ‖σ‖ with {_listed(by_std)}.",
        _standard(found, signs),
        *(_upfront(found, model) for model in found.of("radius")),
        _matching(found),
        *(_rival(found, model) for model in found.rivals),
        _claims(found, by_constant, by_std, signs),
    ]


def _listed(numbers: dict[str, float]) -> str:
    return joined([f"{name}: {_two(value)}" for name, value in numbers.items()])


def _two(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.2f}"


def _sound(found: Reproduction, event: str) -> str:
    own = above(found.lipschitz, event)
    return (
        f"Of {SAID[event]}, the certified margin lies above the margin that an attack leaves at "
        f"{own.exceeded} of {own.points} points; its median share of that margin is "
        f"{_two(own.share)}."
    )


def _certified(found: Reproduction) -> str:
    first, last = found.of("constant")[0], found.of("constant")[-1]

    def ends(key: str) -> str:
        values = (float(np.mean(getattr(model, key))) for model in (first, last))
        return " to ".join(f"{value:.3f}" for value in values)

    return (
        f"From L = {first.plan.level:g} to {last.plan.level:g} the certified margins of two draws "
        f"are {ends('certified_two')}; Theorem 2 alone certifies {ends('theorem')}, and with the "
        f"constants before the sigmoids, as in the published code, {ends('published')}."
    )


def _over_standard(found: Reproduction) -> list[int]:
    """Of the models by L, whether their margins under attack are larger than the standard VAE's."""
    plain = found.standard.attacked_two
    return [larger(m.attacked_two, plain) for m in found.of("constant")]


def _standard(found: Reproduction, signs: list[int]) -> str:
    up, down = (sum(each == sign for each in signs) for sign in (1, -1))
    gap = found.standard.elbo.mean() - max(m.elbo.mean() for m in found.of("constant"))
    least = [float(m.attacked_two.min()) for m in found.of("constant")]
    return (
        f"Attacks leave the Lipschitz VAEs larger margins than the standard VAE "
        f"({_middle(found, found.standard, 'two')} in the median) for {up} of {len(signs)} "
        f"constants and smaller ones for {down}; the smallest over the inputs is {min(least):.2f} "
        f"to {max(least):.2f} against {found.standard.attacked_two.min():.2f}. The standard VAE's "
        "bound of log p is "
        f"{abs(gap):.0f} nats {'higher' if gap > 0 else 'lower'} than the best of theirs."
    )


def _middle(found: Reproduction, model: Measured, event: str) -> str:
    value = middle(getattr(model, f"attacked_{event}"))
    return f"{value:.2f}" if math.isfinite(value) else f"more than {found.settings.r_max:g}"


def _upfront(found: Reproduction, model: Measured) -> str:
    shares = [100 * float(getattr(model, f"inside_{event}").min()) for event in EVENTS]
    fallen = sum(int(broken(model, event, found.settings).sum()) for event in EVENTS)
    certified = min(float(getattr(model, f"certified_{event}").min()) for event in EVENTS)
    return (
        f"A radius of {model.plan.level:g} specified upfront is certified at every point (at least "
        f"{math.floor(1e4 * certified) / 1e4:g}) after training; {len(ATTACKS)} attacks within it "
        f"leave at least {math.floor(shares[0]):.0f} % (fixed centre) and "
        f"{math.floor(shares[1]):.0f} % (two draws) of the draws within r and break "
        f"{fallen} of {2 * model.inside_fixed.size} events; beyond it an attack first breaks it at "
        f"{_middle(found, model, 'fixed')} and {_middle(found, model, 'two')} in the median."
    )


def _matching(found: Reproduction) -> str:
    errors = [float(m.error.mean()) for m in found.rivals]
    target = float(found.target.error.mean())
    off = max(abs(error / target - 1.0) for error in errors)
    return (
        f"At equal reconstruction (squared error {target:.4f} of the one with radius "
        f"{found.target.plan.level:g}; that of the others, by their β, {min(errors):.4f} to "
        f"{max(errors):.4f}, at most {100 * off:.0f} % off):"
    )


def _rival(found: Reproduction, model: Measured) -> str:
    own, s = found.target, found.settings
    most = [float(m.inside_damage.max(0).mean()) for m in (own, model)]
    margin = larger(own.attacked_fixed, model.attacked_fixed)
    damage = difference("", *(m.inside_damage.max(0) for m in (own, model)))
    fallen = int(broken(model, "fixed", s).any(0).sum())
    return (
        f"against {model.plan.title} the Lipschitz VAE's margins under attack are "
        f"{_words(margin, 'larger', 'smaller')} ({_middle(found, own, 'fixed')} against "
        f"{_middle(found, model, 'fixed')} in the median), the damage within {own.plan.level:g} is "
        f"{_words(damage.sign, 'larger', 'smaller')} ({most[0]:.2f} against "
        f"{most[1]:.2f}), and attacks within it break {fallen} of "
        f"{s.inputs} inputs of the other"
        f"{'.' if model is found.rivals[-1] else ';'}"
    )


def _words(sign: int, more: str, less: str) -> str:
    return {1: more, 0: "not different beyond the error", -1: less}[sign]


def _claims(
    found: Reproduction,
    by_constant: dict[str, float],
    by_std: dict[str, float],
    signs: list[int],
) -> str:
    names = list(TERMS)
    exceeded = sum(above(found.lipschitz, event).exceeded for event in EVENTS)
    over = "holds" if min(signs) > 0 else "holds in part" if max(signs) > 0 else "does not hold"
    over = over if any(signs) else "undecided"
    withstood = not any(
        broken(m, event, found.settings).any() for m in found.of("radius") for event in EVENTS
    )
    return (
        "Of the published claims: certified margins are never above estimated ones: "
        f"{'does not hold' if exceeded else 'holds'}; margins shrink as L grows: "
        f"{_falls([by_constant[name] for name in names])}; the likelihood gains from a larger L: "
        f"{_falls([-by_constant['the bound of log p']])}; margins shrink as ‖σ‖ grows: "
        f"{_falls([by_std[name] for name in names])}; margins under attack are larger than the "
        f"standard VAE's: {over}; robustness specified upfront withstands every attack within it: "
        f"{'holds' if withstood else 'does not hold'}."
    )


def _falls(correlations: list[float]) -> str:
    """Whether all of them are below −½."""
    known = [value < -0.5 for value in correlations if not math.isnan(value)]
    if not known:
        return "undecided"
    return "holds" if all(known) else "holds in part" if any(known) else "does not hold"
