"""The headline of a report: sentences and tiles made from the numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vaefast.report.words import (
    FIRST_ORDER,
    MEASURES,
    NOT_ADAPTIVE,
    Measure,
    change,
    correlation,
    number,
    percent,
    reach,
)

__all__ = ["Tile", "findings", "headline_attack", "measure_of", "tiles"]

Numbers = dict[str, Any]
POOR = 0.3  # share of variance explained below which the robustness means little


class Tile(NamedTuple):
    value: str
    label: str


def headline_attack(numbers: Numbers, attack: str) -> Numbers:
    """The middle radius of one attack: neither the gentlest nor the harshest."""
    found = sorted(
        (a for a in numbers["attacks"].values() if a["attack"] == attack), key=lambda a: a["eps"]
    )
    return found[(len(found) - 1) // 2]


def findings(numbers: Numbers) -> list[str]:
    """One paragraph each on the attacks, the defence's cost, the margins and the spectrum."""
    if numbers["failed"] == numbers["inputs"]:
        return ["Every input failed: no result of any row is finite, so there are no findings."]
    latent = headline_attack(numbers, "latent")
    damage = headline_attack(numbers, "max_damage")
    paragraphs = [
        [_attack(numbers, latent), _defence(numbers, latent), _accuracy(latent)],
        [_attack(numbers, damage), _defence(numbers, damage), _accuracy(damage)],
        [_quality(numbers), _clean(numbers)],
        [_margin(numbers), _correlation(damage)],
        [_spectrum(numbers)],
    ]
    joined = [" ".join(filter(None, sentences)) for sentences in paragraphs]
    return [paragraph for paragraph in joined if paragraph]


def tiles(numbers: Numbers) -> list[Tile]:
    """The few numbers that stand large at the top."""
    if numbers["failed"] == numbers["inputs"]:
        return []
    latent = headline_attack(numbers, "latent")
    measure = measure_of(numbers)
    if not latent[measure.key]:
        return []
    before, after = mean(latent[measure.key]), mean(latent[f"{measure.key}_defended"])
    unattacked = measure.number(mean(numbers["clean"][f"{measure.key}_resampled"]))
    where = f"latent attack, ℓ∞ {latent['radius']:g}"
    found = [
        Tile(
            f"{measure.number(before)} → {measure.number(after)}",
            f"{measure.noun} of the reconstruction ({measure.formula}, {unattacked} unattacked) "
            f"under the {where}, without and with the defence ({NOT_ADAPTIVE})",
        )
    ]
    if latent.get("accuracy"):
        before, after = latent["accuracy"]["mean"], latent["accuracy_defended"]["mean"]
        found.append(
            Tile(
                f"{percent(before)} → {percent(after)}",
                f"keep their predicted class under the {where}, "
                f"without and with the defence ({NOT_ADAPTIVE})",
            )
        )
    margin = numbers["clean"]["margin_whitened"]["median"]
    found.append(Tile(number(margin, 2), f"median margin, ℓ2 length ({FIRST_ORDER})"))
    return found


def mean(summary: Numbers) -> float:
    return float(summary["mean"])


def measure_of(numbers: Numbers) -> Measure:
    return MEASURES[numbers["measure"]]


def _attack(numbers: Numbers, attack: Numbers) -> str:
    measure, what = measure_of(numbers), reach(attack, images=numbers["images"])
    if not attack[measure.key]:
        return f"The {_kind(attack)} that {what} failed on every input."
    before = mean(numbers["clean"][f"{measure.key}_resampled"])
    after = mean(attack[measure.key])
    verb = change(before, after, relative=not measure.bounded)
    amount = f"at {measure.number(after)}"
    if verb != "leaves":
        amount = f"from {measure.number(before)} to {measure.number(after)}"
    return (
        f"A {_kind(attack)} that {what} {verb} {measure.subject} "
        f"{amount} ({measure.formula}, mean over the inputs)."
    )


def _defence(numbers: Numbers, attack: Numbers) -> str:
    measure = measure_of(numbers)
    if not attack[measure.key]:
        return ""
    before, after = mean(attack[measure.key]), mean(attack[f"{measure.key}_defended"])
    verb = change(before, after, relative=not measure.bounded)
    amount = f"it {'at' if verb == 'leaves' else 'to'} {measure.number(after)}"
    return f"The HMC defence {verb} {amount} ({NOT_ADAPTIVE})."


def _accuracy(attack: Numbers) -> str:
    if not attack.get("accuracy"):
        return ""
    return (
        f"{percent(attack['accuracy']['mean'])} of these adversarial inputs keep their predicted "
        f"class, {percent(attack['accuracy_defended']['mean'])} after the defence "
        f"({NOT_ADAPTIVE})."
    )


def _quality(numbers: Numbers) -> str:
    explained = numbers["variance_explained"]
    if explained is None:
        return ""
    text = f"The reconstruction explains {percent(explained)} of the variance of the inputs."
    if explained < POOR:
        text += " A model that shows so little of its input is easily robust: train it further."
    return text


def _clean(numbers: Numbers) -> str:
    clean, measure = numbers["clean"], measure_of(numbers)
    defended = measure.number(mean(clean[f"clean_{measure.key}_defended"]))
    resampled = measure.number(mean(clean[f"{measure.key}_resampled"]))
    return (
        "On clean inputs the reconstructions before and after the defence have a "
        f"{measure.noun} of {defended}, two samples from the encoder one of {resampled}."
        + _clean_accuracy(clean)
    )


def _clean_accuracy(clean: Numbers) -> str:
    if not clean.get("accuracy_defended"):
        return ""
    right = percent(clean["label_accuracy"]["mean"])
    kept = percent(clean["accuracy_defended"]["mean"])
    return (
        f" The latent classifier agrees with the label of {right} of the clean inputs; {kept} keep "
        f"their predicted class after the defence ({NOT_ADAPTIVE})."
    )


def _margin(numbers: Numbers) -> str:
    margin = numbers["clean"]["margin_whitened"]
    if margin["median"] is None:
        return "The latent of most inputs does not depend on the input at all."
    abstained = numbers["abstained"]
    rest = f" {abstained} inputs have none." if abstained > 1 else ""
    rest = " One input has none." if abstained == 1 else rest
    return (
        f"Half of the inputs have a margin of at least {number(margin['median'], 2)}: up to that "
        f"length of perturbation most reconstructions should stay within {number(numbers['r'], 2)} "
        f"of the unattacked one (ℓ2, {FIRST_ORDER}).{rest}{_certified(numbers)}"
    )


def _certified(numbers: Numbers) -> str:
    """The sound margin, where the audit has it."""
    margin = numbers["clean"].get("margin_certified")
    if margin is None:
        return ""
    some, inputs = numbers["certified"], numbers["inputs"] - numbers["failed"]
    whom = "them" if some == inputs else f"the {some} inputs that got a certified margin"
    text = f" Certified, it is at least {number(margin['median'], 2)} for half of {whom}."
    found = numbers["empirical"]
    if found and found["violated"]:
        rows = ", ".join(map(str, found["violated"]))
        return f"{text} THE CERTIFICATE IS CONTRADICTED by an attack on inputs {rows}."
    if found and found["ratio"] is not None:
        text += (
            f" That is {number(found['ratio'], 2)} of the smallest break that an attack found, in "
            f"the median of the {found['broken']} of {found['inputs']} searched inputs that broke."
        )
    return text


def _correlation(damage: Numbers) -> str:
    rho = damage["spearman_margin_degradation"]
    if rho is None:
        return ""
    if damage["spearman_p_value"] > 0.05:
        verdict = "The margin does not tell how much likelihood an input loses"
    elif rho < 0:
        verdict = "Inputs with a larger margin lose less likelihood"
    else:
        verdict = "Inputs with a larger margin lose more likelihood, against expectation,"
    return f"{verdict} under the maximum-damage attack (rank correlation {correlation(rho)})."


def _spectrum(numbers: Numbers) -> str:
    eigenvalues = np.asarray(numbers["median_eigenvalues"])
    if not eigenvalues.sum() > 0:
        return ""
    count = int(np.searchsorted(np.cumsum(eigenvalues) / eigenvalues.sum(), 0.9)) + 1
    return (
        f"{count} of the {len(eigenvalues)} sensitive directions of the encoder carry "
        "90\u00a0% of its squared sensitivity."
    )


def _kind(attack: Numbers) -> str:
    return "latent attack" if attack["attack"] == "latent" else "maximum-damage attack"
