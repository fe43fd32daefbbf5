"""What holds and what does not, in sentences made from the numbers alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vaefast.reproduce.kuzina2022.cells import AIMS, CLEAN, HMC, NONE, PUBLISHED, Aim, Cell
from vaefast.reproduce.kuzina2022.run import Reproduction
from vaefast.reproduce.sentences import Difference, Metric, difference, sentence, verdict

__all__ = ["findings"]

METRICS = {"msssim": Metric("MSSSIM"), "same": Metric("adversarial accuracy", points=True)}
SAID = METRICS | {"sampled": Metric("adversarial accuracy of a sample", points=True)}
FAIR = ("msssim", "sampled")  # that compare like with like without an attack
Choice = tuple[str, str]  # attack, defence


def findings(found: Reproduction) -> list[str]:
    """The paragraph, a sentence each; the published claims and their verdicts come last."""
    paragraph = []
    for metric in METRICS:
        attack = _compared(found, metric, (PUBLISHED, NONE), (CLEAN, NONE))
        paragraph.append(_sentence("Without a defence the published attack", metric, attack))
    gains = {m: _compared(found, m, (PUBLISHED, HMC), (PUBLISHED, NONE)) for m in SAID}
    for metric in METRICS:
        paragraph.append(_sentence("HMC against the published attack", metric, gains[metric]))
    paragraph.append(_of_samples(found))
    paragraph.append(_sentence("Against such a sample HMC", "sampled", gains["sampled"]))
    for aim in AIMS:
        paragraph += _aimed(found, aim)
    clean = {m: _unattacked(found, m) for m in FAIR}
    for metric, cost in clean.items():
        paragraph.append(_sentence("Without an attack HMC", metric, cost, "model"))
    paragraph += _against_vae(found)
    left = {aim.noun: _left(found, aim) for aim in AIMS}
    return [*paragraph, _accepted(found), _claims(gains, clean, left)]


def _of_samples(found: Reproduction) -> str:
    """How much of the class is lost by sampling alone, which accuracy with HMC includes."""
    shares = [
        float(np.nanmean(_cell(found, name, 0.0, (CLEAN, NONE)).per_reference("sampled")))
        for name in found.settings.models
    ]
    span = SAID["sampled"].span(min(shares), max(shares)).replace(" points", "")
    return (
        "As published, the class is that of a mean without a defence and that of a sample with "
        f"HMC; without both a sample of q(z|x) keeps the class of its mean in {span} %."
    )


def _sentence(subject: str, metric: str, found: Sequence[Difference], where: str = "cell") -> str:
    return sentence(subject, SAID[metric], found, where)


def _compared(found: Reproduction, metric: str, after: Choice, before: Choice) -> list[Difference]:
    """Of every model and radius, one choice of attack and defence against another."""
    return [
        difference(_label(found, name, radius), *_pair(found, metric, name, radius, after, before))
        for name in found.settings.models
        for radius in found.settings.radii
    ]


def _unattacked(found: Reproduction, metric: str) -> list[Difference]:
    return [
        difference(name, *_pair(found, metric, name, 0.0, (CLEAN, HMC), (CLEAN, NONE)))
        for name in found.settings.models
    ]


def _pair(
    found: Reproduction, metric: str, model: str, radius: float, *choices: Choice
) -> tuple[np.ndarray, np.ndarray]:
    after, before = (
        _cell(found, model, radius, choice).per_reference(metric) for choice in choices
    )
    return after, before


def _cell(found: Reproduction, model: str, radius: float, choice: Choice) -> Cell:
    return found.cell(model, 0.0 if choice[0] == CLEAN else radius, *choice)


def _aimed(found: Reproduction, aim: Aim) -> list[str]:
    """How much an attack with another aim does, how much more one that knows the defence.

    Of each reference one point of each attack, on equal draws; the class is that of a sample with
    and without the defence.
    """
    metric, noun = _fair(aim), SAID[_fair(aim)].noun
    published, oblivious, adaptive = aim.strongest, aim.oblivious, aim.adaptive
    alone = _compared(found, metric, (oblivious, NONE), (published, NONE))
    gain = _compared(found, metric, (oblivious, HMC), (oblivious, NONE))
    carried = _compared(found, metric, (oblivious, HMC), (published, HMC))
    known = _compared(found, metric, (adaptive, HMC), (oblivious, HMC))
    subject = f"Aimed at the {aim.noun} and knowing nothing of HMC, the attack"
    words = "against the published attack's strongest point"
    parts = [
        _pooled(found, metric, (oblivious, HMC), (published, HMC)),
        _pooled(found, metric, (adaptive, HMC), (oblivious, HMC)),
    ]
    return [
        _sentence(f"{subject} on no defence, {words},", metric, alone),
        _sentence("HMC against it", metric, gain),
        _sentence(f"Carried over to HMC it, {words} there,", metric, carried),
        _sentence("With this aim, knowing HMC (the attack through it) moreover", metric, known),
        f"In the mean over the cells the aim changes {noun} under HMC by {_said(metric, parts[0])} "
        f"and the knowledge by {_said(metric, parts[1])}.",
        _sentence(
            "HMC under the attack through it, against no defence under the attack with this aim,",
            metric,
            _left(found, aim),
        ),
    ]


def _fair(aim: Aim) -> str:
    return "sampled" if aim.metric == "same" else aim.metric


def _left(found: Reproduction, aim: Aim) -> list[Difference]:
    """What the defence is worth where the attack on either knows what it attacks."""
    return _compared(found, _fair(aim), (aim.adaptive, HMC), (aim.oblivious, NONE))


def _pooled(found: Reproduction, metric: str, after: Choice, before: Choice) -> Difference:
    """Of each reference in the mean over all models and radii, which share the references."""
    pairs = [
        _pair(found, metric, name, radius, after, before)
        for name in found.settings.models
        for radius in found.settings.radii
    ]
    ends = (np.mean([pair[k] for pair in pairs], axis=0) for k in (0, 1))
    return difference("all cells", *ends)


def _said(metric: str, found: Difference) -> str:
    """``-0.080 ± 0.020``, with the half width of its interval."""
    error, mean = SAID[metric].said(found.error), SAID[metric].said(found.mean)
    return f"{mean.removesuffix(' points')} ± {error}"


def _accepted(found: Reproduction) -> str:
    """How far the chains' adaptation got, which aims at 90 %."""
    rates = [c.facts["accept_rate"] for c in found.cells if c.defence == HMC and c.attack != CLEAN]
    few = f": {found.settings.transitions} transitions are too few for it" * (min(rates) < 0.8)
    return (
        f"Under attack the chains accept {100 * min(rates):.0f} to {100 * max(rates):.0f} % of "
        f"their proposals, where their adaptation aims at 90 %{few}."
    )


def _against_vae(found: Reproduction) -> list[str]:
    """What training alone is worth, where the VAE is in the grid."""
    others = [name for name in found.settings.models if name != "vae"]
    if "vae" not in found.settings.models:
        return []
    said = []
    for name in others:
        changes = []
        for radius in found.settings.radii:
            own, vae = (
                _cell(found, model, radius, (PUBLISHED, NONE)).per_reference("msssim")
                for model in (name, "vae")
            )
            changes.append(difference(f"at {radius:g}", own, vae))
        said.append(
            _sentence(f"Training alone ({name} against vae, no defence)", "msssim", changes)
        )
    return said


def _claims(
    gains: dict[str, list[Difference]],
    clean: dict[str, list[Difference]],
    left: dict[str, list[Difference]],
) -> str:
    """The directions that the paper states, and what these numbers say of each."""
    costs = [d for differences in clean.values() for d in differences]
    lost = [d for d in costs if d.sign < 0]
    unchanged = f"a loss in {len(lost)} of {len(costs)}" if lost else "no loss was found"
    withstood = ", ".join(f"{noun} {verdict(found)}" for noun, found in left.items())
    return (
        "Of the published claims: HMC raises MSSSIM under the published attack: "
        f"{verdict(gains['msssim'])}; HMC raises adversarial accuracy: as published, a sample "
        f"against a mean, {verdict(gains['same'])}, sample against sample "
        f"{verdict(gains['sampled'])}; without an attack HMC costs nothing: {unchanged}. That HMC "
        "raises either where the attack has that aim and knows what it attacks, with HMC or "
        f"without: {withstood}. The intervals are not corrected for their number."
    )


def _label(found: Reproduction, model: str, radius: float) -> str:
    return f"{model} at {radius:g}"
