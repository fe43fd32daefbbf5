"""What holds and what does not, in sentences made from the numbers alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from vaefast.reproduce.cells import AIMS, CLEAN, HMC, NONE, PUBLISHED, Cell
from vaefast.reproduce.run import Reproduction

__all__ = ["Difference", "difference", "findings", "sentence", "verdict"]

LEVEL = 0.95
NAMES = {"msssim": "MSSSIM", "same": "adversarial accuracy"}
Choice = tuple[str, str]  # attack, defence


class Difference(NamedTuple):
    """A mean difference over the references, paired.

    Args:
        label: which cell.
        mean: the mean.
        error: half width of its 95 % interval (Student's t); NaN of fewer than two references.
    """

    label: str
    mean: float
    error: float

    @property
    def sign(self) -> int:
        """1 or −1 where the interval leaves out 0, else 0."""
        if math.isnan(self.error) or abs(self.mean) <= self.error:
            return 0
        return 1 if self.mean > 0 else -1


def difference(label: str, after: np.ndarray, before: np.ndarray) -> Difference:
    """Of two values per reference [B] each; references with a NaN are left out."""
    each = (after - before)[~np.isnan(after - before)]
    if len(each) < 2:
        return Difference(label, float(each.mean()) if len(each) else math.nan, math.nan)
    quantile = float(stats.t.ppf(0.5 + LEVEL / 2, len(each) - 1))
    return Difference(
        label, float(each.mean()), quantile * float(each.std(ddof=1)) / math.sqrt(len(each))
    )


def sentence(subject: str, metric: str, found: Sequence[Difference], where: str = "cell") -> str:
    """How often ``subject`` raises and lowers the metric, and by how much.

    ``HMC raises MSSSIM in 4 of 6 cells (by 0.02 to 0.1), lowers it in 1 (by 0.03) and shows no
    difference beyond the error in 1.``
    """
    name, total = NAMES[metric], f"{len(found)} {where}{'s' if len(found) > 1 else ''}"
    groups = {sign: [d for d in found if d.sign == sign] for sign in (1, -1, 0)}
    if len(groups[0]) == len(found):
        largest = max((abs(d.mean) for d in found if not math.isnan(d.mean)), default=math.nan)
        return (
            f"{subject} shows no difference in {name} beyond the error in any of {total} (at most "
            f"{_size(metric, largest)})."
        )
    parts, noun, of = [], name, f" of {total}"
    for sign, verb in ((1, "raises"), (-1, "lowers")):
        if groups[sign]:
            sizes = [abs(d.mean) for d in groups[sign]]
            span = f"by {_span(metric, min(sizes), max(sizes))}"
            cells = "" if sign > 0 or len(groups[sign]) == len(found) else _named(groups[sign])
            parts.append(f"{verb} {noun} in {len(groups[sign])}{of} ({span}{cells})")
            noun, of = "it", ""
    if groups[0]:
        parts.append(f"shows no difference beyond the error in {len(groups[0])}")
    return f"{subject} {_joined(parts)}."


def verdict(found: Sequence[Difference]) -> str:
    """Of the claim that every difference is above 0: holds, in part, does not, or undecided."""
    signs = [d.sign for d in found]
    if not signs or not any(signs):
        return "undecided"
    if all(sign > 0 for sign in signs):
        return "holds"
    if any(sign < 0 for sign in signs):
        return "does not hold"
    return "holds in part"


def findings(found: Reproduction) -> list[str]:
    """The paragraph, a sentence each; the published claims and their verdicts come last."""
    paragraph = []
    for metric in NAMES:
        attack = _compared(found, metric, (PUBLISHED, NONE), (CLEAN, NONE))
        paragraph.append(sentence("Without a defence the published attack", metric, attack))
    gains = {m: _compared(found, m, (PUBLISHED, HMC), (PUBLISHED, NONE)) for m in NAMES}
    for metric, gain in gains.items():
        paragraph.append(sentence("HMC against the published attack", metric, gain))
    for metric in NAMES:
        paragraph += _taken_back(found, metric)
    clean = {m: _unattacked(found, m) for m in NAMES}
    for metric, cost in clean.items():
        paragraph.append(sentence("Without an attack HMC", metric, cost, "model"))
    paragraph += _against_vae(found)
    return [*paragraph, _claims(gains, clean)]


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


def _taken_back(found: Reproduction, metric: str) -> list[str]:
    """What the adaptive attack does to the defence, and whether anything is left of it.

    Of each reference its point against the strongest one of the published attack, on equal draws.
    """
    aim = next(aim for aim in AIMS if aim.metric == metric)
    adaptive, known, none = (aim.adaptive, HMC), (aim.strongest, HMC), (aim.strongest, NONE)
    change, gain = (_compared(found, metric, x, y) for x, y in ((adaptive, known), (known, none)))
    subject = f"Aimed at the {aim.noun}, the adaptive attack on HMC"
    said = [sentence(subject, metric, change)]
    gained = [(g, c) for g, c in zip(gain, change, strict=True) if g.sign > 0]
    if gained:
        share = -sum(c.mean for _, c in gained) / sum(g.mean for g, _ in gained)
        verb = "takes back" if share >= 0 else "adds"
        cells = "the cell" if len(gained) == 1 else f"the {len(gained)} cells"
        said.append(
            f"It {verb} {100 * abs(share):.0f} % of the {NAMES[metric]} that HMC had gained in "
            f"{cells} where it gains."
        )
    left = _compared(found, metric, adaptive, none)
    said.append(sentence("HMC attacked adaptively, against no defence,", metric, left))
    return said


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
            changes.append(difference(f"{radius:g}", own, vae))
        said.append(sentence(f"Training alone ({name} against vae, no defence)", "msssim", changes))
    return said


def _claims(gains: dict[str, list[Difference]], clean: dict[str, list[Difference]]) -> str:
    """The directions that the paper states, and what these numbers say of each."""
    costs = [d for differences in clean.values() for d in differences]
    unchanged = "does not hold" if any(d.sign < 0 for d in costs) else "no loss was found"
    return (
        f"Of the published claims: HMC raises MSSSIM under the published attack: "
        f"{verdict(gains['msssim'])}; HMC raises adversarial accuracy: {verdict(gains['same'])}; "
        f"without an attack HMC costs nothing: {unchanged}."
    )


def _label(found: Reproduction, model: str, radius: float) -> str:
    return f"{model} at {radius:g}"


def _size(metric: str, value: float) -> str:
    """A difference in MSSSIM, or in percentage points."""
    if math.isnan(value):
        return "unknown"
    return f"{value:.3f}" if metric == "msssim" else f"{100 * value:.0f} points"


def _span(metric: str, low: float, high: float) -> str:
    ends = [_size(metric, value) for value in (low, high)]
    if ends[0] == ends[1]:
        return ends[0]
    return f"{ends[0].removesuffix(' points')} to {ends[1]}"


def _named(found: Sequence[Difference]) -> str:
    return f"; {', '.join(d.label for d in found)}"


def _joined(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
