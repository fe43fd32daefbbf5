"""Which plots a report shows, from which numbers, with which captions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vaefast.audit.job import NORMS
from vaefast.audit.run import Audit, Outcome
from vaefast.certify import Guarantee
from vaefast.report.figures import SERIES, Line, band_plot, radius_plot, scatter_plot
from vaefast.report.findings import headline_attack, measure_of
from vaefast.report.images import Strip, direction_strip
from vaefast.report.ordering import Chart, ordering_chart
from vaefast.report.words import (
    ATTACKS,
    FIRST_ORDER,
    NOT_ADAPTIVE,
    attack_name,
    correlation,
    number,
    scale,
)

__all__ = ["Chart", "Section", "chart_sections"]

Numbers = dict[str, Any]

MARGINS = {
    "whitened": "margin_whitened",
    "Frobenius": "margin_first_order",
    "certified": "margin_certified",
}


class Section(NamedTuple):
    title: str
    text: str
    charts: list[Chart]
    strip: Strip | None = None


def chart_sections(audit: Audit, numbers: Numbers) -> list[Section]:
    """The plots, in the order of the page; a plot without data is left out."""
    attacks = [name for name in ATTACKS if any(o.plan.attack == name for o in audit.outcomes)]
    radius = [_similarity(numbers, attack) for attack in attacks]
    if audit.has_labels:
        radius += [_accuracy(numbers, attack) for attack in attacks]
    steps = [_steps(audit, attack) for attack in attacks]
    margins = [_degradation(audit, numbers), _margins(audit, scale(numbers))]
    margins.append(ordering_chart(audit, numbers["empirical"], scale(numbers)))
    sections = [
        Section(
            "With and without the defence",
            "The defence draws the latent from the true posterior p(z|x) by Hamiltonian Monte "
            f"Carlo and decodes the last state. It was {NOT_ADAPTIVE}: the attacks did not know "
            "of it, so these numbers are an upper limit of what it is worth.",
            _present(radius),
        ),
        Section(
            "How the attacks climb",
            "The objective that each attack maximises, best so far, for the restart that won. "
            "A curve that still rises at the end says that more steps would find more.",
            _present(steps),
        ),
        Section(
            "Margins",
            "A margin is the length of perturbation up to which most reconstructions should stay "
            f"within {number(numbers['r'], 2)} of the unattacked one. It comes from the encoder's "
            f"Jacobian at the clean input: {numbers['guarantee']}.",
            _present(margins),
        ),
        Section(
            "Sensitive directions",
            "Eigenvalues of the encoder's pullback metric: by how much a unit change along each "
            "principal direction of the input moves the latent, squared.",
            _present([_spectrum(audit, scale(numbers))]),
            direction_strip("The most sensitive direction", audit.directions)
            if audit.images
            else None,
        ),
    ]
    return [section for section in sections if section.charts]


def _present(charts: list[Chart | None]) -> list[Chart]:
    return [chart for chart in charts if chart is not None]


def _similarity(numbers: Numbers, attack: str) -> Chart | None:
    clean, measure = numbers["clean"], measure_of(numbers)
    key = measure.key
    points = [p for p in _of(numbers, attack) if p[key]]
    if not points or not clean[f"{key}_resampled"]:
        return None
    x = [0.0] + [p["radius"] for p in points]
    without = [clean[f"{key}_resampled"]] + [p[key] for p in points]
    with_ = [clean[f"clean_{key}_defended"]] + [p[f"{key}_defended"] for p in points]
    lines = [
        _mean_line(f"HMC defence ({NOT_ADAPTIVE})", x, with_),
        _mean_line("no defence", x, without),
    ]
    svg = radius_plot(
        f"{measure.noun}-{attack}",
        lines,
        x_label=_radius_label(points[0], scale(numbers)),
        y_label=measure.formula if measure.bounded else f"{measure.noun}, {scale(numbers)} (ℓ2)",
        bounded=measure.bounded,
    )
    caption = (
        f"{measure.formula if measure.bounded else 'ℓ2 distance'} between the reconstructions of "
        f"the clean and of the adversarial input "
        f"({_ends(lines)}). Mean over the inputs, bars: 95 % interval of the mean."
    )
    title = f"{measure.noun.capitalize()}, {ATTACKS[attack].lower()}"
    return Chart(title, svg, caption, _legend(lines))


def _accuracy(numbers: Numbers, attack: str) -> Chart | None:
    clean = numbers["clean"]
    points = [p for p in _of(numbers, attack) if p.get("accuracy")]
    if not points or not clean.get("accuracy_defended"):
        return None
    x = [0.0] + [p["radius"] for p in points]
    sure = {"mean": 1.0, "interval": [1.0, 1.0]}
    without = [sure] + [p["accuracy"] for p in points]
    with_ = [clean["accuracy_defended"]] + [p["accuracy_defended"] for p in points]
    lines = [
        _share_line(f"HMC defence ({NOT_ADAPTIVE})", x, with_),
        _share_line("no defence", x, without),
    ]
    svg = radius_plot(
        f"accuracy-{attack}",
        lines,
        x_label=_radius_label(points[0], scale(numbers)),
        y_label="same predicted class",
        percent=True,
    )
    caption = (
        "Share of the inputs whose class, by a linear classifier on the latent, is the one "
        f"predicted for the clean input ({_ends(lines)}). Bars: 95 % Clopper-Pearson."
    )
    return Chart(f"Same class, {ATTACKS[attack].lower()}", svg, caption, _legend(lines))


def _spread(lines: list[Line]) -> list[Line]:
    """At most as many curves as there are colours, the first and the last among them."""
    if len(lines) <= len(SERIES):
        return lines
    return [lines[round(k)] for k in np.linspace(0, len(lines) - 1, len(SERIES))]


def _legend(lines: list[Line]) -> tuple[str, ...]:
    return tuple(line.label for line in lines)


def _ends(lines: list[Line]) -> str:
    """Every curve's ends in words, for those who do not see the plot."""
    return "; ".join(
        f"{line.label}: {line.y[0]:.2f} at radius 0, {line.y[-1]:.2f} at {line.x[-1]:.3g}"
        for line in lines
    )


def _steps(audit: Audit, attack: str) -> Chart | None:
    lines = []
    for outcome in audit.outcomes:
        history = outcome.result.history
        good = ~outcome.values["failed"]
        if outcome.plan.attack == attack and history is not None and good.any():
            best = np.fmax.accumulate(history.cpu().numpy()[:, good], axis=0)
            lines.append(_quartile_line(_short(outcome), best))
    if not lines:
        return None
    plan = next(o.plan for o in audit.outcomes if o.plan.attack == attack)
    unit = audit.objective_unit(plan)
    what = audit.settings.divergence.replace("_", " ") if attack == "latent" else "distance"
    shown = _spread(lines)
    svg = band_plot(
        f"steps-{attack}", shown, x_label="attack step", y_label=f"{what}, {unit}", log=True
    )
    caption = "Objective against attack step: median over the inputs, bands between the quartiles."
    if len(shown) < len(lines):
        caption += f" {len(shown)} of {len(lines)} radii are shown."
    return Chart(ATTACKS[attack], svg, caption, _legend(shown))


def _degradation(audit: Audit, numbers: Numbers) -> Chart | None:
    attack = headline_attack(numbers, "max_damage")
    outcome = next(o for o in audit.outcomes if numbers["attacks"][o.plan.name] is attack)
    good = ~(audit.values["failed"] | outcome.values["failed"])
    margin = audit.values["margin_whitened"][good]
    degradation = outcome.values["likelihood_degradation"][good]
    if not len(margin):
        return None
    svg = scatter_plot(
        "degradation",
        margin,
        np.maximum(degradation, 1e-4),
        x_label=f"whitened margin, {scale(numbers)} (ℓ2)",
        y_label="likelihood degradation, relative",
        log=True,
    )
    caption = (
        f"Each dot is an input; its whitened margin ({FIRST_ORDER}) against the share of its "
        f"log-likelihood that it loses to the attack ({attack_name(attack)}). "
        f"Rank correlation {correlation(attack['spearman_margin_degradation'])}. "
        "Inputs without a margin stand at 0."
    )
    return Chart("Margin against likelihood degradation", svg, caption)


def _margins(audit: Audit, unit: str) -> Chart | None:
    good = ~audit.values["failed"]
    if not good.any():
        return None
    lines = []
    for label, name in MARGINS.items():
        if name not in audit.values:
            continue
        margin = audit.values[name][good]
        margin = np.sort(margin[~np.isnan(margin)])
        if not len(margin):
            continue
        share = np.arange(len(margin), 0, -1) / len(margin)
        x, y = np.append(0.0, margin), np.append(1.0, share)
        lines.append(Line(label, x.tolist(), y.tolist(), y.tolist(), y.tolist()))
    svg = band_plot(
        "margins", lines, x_label=f"margin, {unit} (ℓ2)", y_label="share of inputs at or above"
    )
    medians = "; ".join(
        f"{line.label}: median {number(float(np.median(line.x[1:])), 2)}" for line in lines
    )
    caption = (
        f"Share of the inputs whose margin is at least the value on the axis ({medians}). "
        f"The whitened and the Frobenius one are {FIRST_ORDER}; the whitened one uses each "
        "latent's own spread and is never the smaller."
    )
    if "certified" in (line.label for line in lines):
        caption += f" The certified one is {audit.certificate or Guarantee.LOCAL}."
        if (count := int((~np.isnan(audit.values["margin_certified"][good])).sum())) < good.sum():
            caption += f" It is of {count} of the {good.sum()} inputs."
    return Chart("How many inputs have which margin", svg, caption, _legend(lines))


def _spectrum(audit: Audit, unit: str) -> Chart | None:
    eigenvalues = audit.eigenvalues[~audit.values["failed"]]
    if not len(eigenvalues):
        return None
    line = _quartile_line("encoder", np.maximum(eigenvalues.T, 1e-12), first=1)
    svg = band_plot(
        "spectrum", [line], x_label="rank", y_label=f"eigenvalue, latent² per {unit}²", log=True
    )
    caption = (
        "Eigenvalues of the pullback metric by rank: median over the inputs, band from quartile to "
        f"quartile. The largest is {number(line.y[0])}, the smallest {number(line.y[-1])}."
    )
    return Chart("Eigenspectrum of the pullback metric", svg, caption)


def _of(numbers: Numbers, attack: str) -> list[Numbers]:
    return [a for a in numbers["attacks"].values() if a["attack"] == attack]


def _short(outcome: Outcome) -> str:
    return f"{NORMS[outcome.plan.norm]} {outcome.plan.radius:.3g}"


def _radius_label(point: Numbers, unit: str) -> str:
    return f"attack radius {NORMS[point['norm']]}, {unit}"


def _mean_line(label: str, x: list[float], summaries: list[Numbers]) -> Line:
    y = [s["mean"] for s in summaries]
    width = [1.96 * s["std_error"] for s in summaries]
    return Line(label, x, y, np.subtract(y, width).tolist(), np.add(y, width).tolist())


def _share_line(label: str, x: list[float], shares: list[Numbers]) -> Line:
    y = [s["mean"] for s in shares]
    return Line(label, x, y, [s["interval"][0] for s in shares], [s["interval"][1] for s in shares])


def _quartile_line(label: str, values: np.ndarray, first: int = 0) -> Line:
    """The median of [n, B] over B with its quartiles; x counts from ``first``."""
    low, y, high = np.quantile(values, (0.25, 0.5, 0.75), axis=1)
    x = np.arange(first, first + len(values))
    return Line(label, x.tolist(), y.tolist(), low.tolist(), high.tolist())
