"""report.html of a reproduction: one file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from vaefast.hmc import KUZINA2022
from vaefast.report.charts import Chart
from vaefast.report.figures import Line, radius_plot
from vaefast.report.images import Strip, strip
from vaefast.report.page import Panel
from vaefast.reproduce.kuzina2022.cells import AIMS, CLEAN, HMC, NONE, PUBLISHED, Aim, Cell
from vaefast.reproduce.kuzina2022.findings import findings
from vaefast.reproduce.kuzina2022.run import Reproduction
from vaefast.reproduce.kuzina2022.settings import Settings
from vaefast.reproduce.kuzina2022.table import METRICS, found_by
from vaefast.reproduce.numbers import estimate, plus_minus
from vaefast.reproduce.shell import render_page, setting_rows

__all__ = ["render"]

TITLES = {
    (CLEAN, NONE): "no attack, no defence",
    (CLEAN, HMC): "no attack, HMC",
    (PUBLISHED, NONE): "published attack, no defence",
    (PUBLISHED, HMC): "published attack, HMC",
}
for _aim in AIMS:
    TITLES |= {
        (_aim.strongest, NONE): f"its strongest point at the {_aim.noun}, no defence",
        (_aim.strongest, HMC): f"its strongest point at the {_aim.noun}, HMC",
        (_aim.oblivious, NONE): f"attack at the {_aim.noun}, no defence",
        (_aim.oblivious, HMC): f"attack at the {_aim.noun} that knows nothing of HMC, HMC",
        (_aim.adaptive, HMC): f"adaptive attack at the {_aim.noun}, HMC",
    }
SHOWN = [(PUBLISHED, NONE), (PUBLISHED, HMC)]  # as images
for _aim in AIMS:
    SHOWN += [(_aim.oblivious, HMC), (_aim.adaptive, HMC)]


def render(found: Reproduction, command: str, origin: str) -> str:
    """The page as HTML text.

    Args:
        found: what to show.
        command: the command line that makes these numbers.
        origin: which sources made them, a sentence.
    """
    return render_page(
        "kuzina2022",
        found=found,
        findings=findings(found),
        charts=[_chart(found, name, aim) for name in found.settings.models for aim in AIMS],
        bound=found.bound and found.bound.chart,
        panels=_panels(found),
        rows=[_row(found, cell) for cell in found.cells],
        sizes=setting_rows(found.settings.record(), _published(found)),
        models=_models(found),
        command=command,
        origin=origin,
    )


def _title(found: Reproduction, model: str) -> str:
    return next(s.training.title for s in found.subjects if s.name == model)


def _chart(found: Reproduction, model: str, aim: Aim) -> Chart:
    """Over the radii, all under attacks of one aim; bars of two standard errors."""
    x, metric = [0.0, *found.settings.radii], aim.metric
    lines = []
    for label, attack, defence in (
        ("HMC, the attack not knowing it", aim.oblivious, HMC),
        ("no defence", aim.oblivious, NONE),
        ("HMC attacked adaptively", aim.adaptive, HMC),
    ):
        cells = [found.cell(model, 0.0, CLEAN, defence)]
        cells += [found.cell(model, radius, attack, defence) for radius in x[1:]]
        points = [estimate(cell.per_reference(metric)) for cell in cells]
        y, error = ([p[k] for p in points] for k in (0, 1))
        width = [0.0 if math.isnan(e) else 2.0 * e for e in error]
        low, high = ([a + s * b for a, b in zip(y, width, strict=True)] for s in (-1, 1))
        lines.append(Line(label, x, y, low, high))
    noun = "MSSSIM" if metric == "msssim" else "same predicted class"
    name = f"{metric}-{model.replace('.', '_')}"
    label = "attack radius ℓ∞, pixel scale"
    svg = radius_plot(name, lines, x_label=label, y_label=noun, percent=metric == "same")
    ends = "; ".join(f"{line.label}: {line.y[-1]:.2f} at {line.x[-1]:g}" for line in lines)
    caption = (
        f"Of each reference the point of an attack at the {aim.noun}; mean over the references, "
        f"bars of two standard errors. {ends}."
    )
    title = f"{_title(found, model)}: {'MSSSIM' if metric == 'msssim' else 'accuracy'}"
    return Chart(title, svg, caption, tuple(line.label for line in lines))


def _panels(found: Reproduction) -> list[Panel]:
    panels: list[Panel] = []
    for subject in found.subjects:
        for radius in found.settings.radii:
            panels.append(
                Panel(
                    group=subject.training.title,
                    tab=f"{radius:g}",
                    title=f"{subject.training.title}, ℓ∞ {radius:g}",
                    text="The first restart or chain of each of the first references.",
                    chosen=not panels,
                    strips=_strips(found, subject.name, radius),
                )
            )
    return panels


def _strips(found: Reproduction, model: str, radius: float) -> list[Strip]:
    subject = next(s for s in found.subjects if s.name == model)
    reference = subject.predicted.numpy()
    shown: Callable[..., Strip] = strip
    strips = [
        shown("Reference", subject.x, reference, reference, found.classes),
        shown("Its reconstruction", subject.reconstruction),
    ]
    for attack, defence in SHOWN:
        cell = found.cell(model, radius, attack, defence)
        title = TITLES[attack, defence]
        if (attack, defence) != (PUBLISHED, HMC):
            words = title.split(",")[0]
            strips.append(shown(f"Input: {words}", cell.pictures["input"]))
        classes = cell.pictures["predicted"].numpy()
        images = cell.pictures["reconstruction"]
        title = f"{title[0].upper()}{title[1:]}"
        strips.append(shown(title, images, classes, reference, found.classes))
    return strips


def _row(found: Reproduction, cell: Cell) -> dict[str, Any]:
    msssim, same, sampled = (estimate(cell.per_reference(metric)) for metric in METRICS)
    rate = cell.facts.get("accept_rate", math.nan)
    return {
        "model": _title(found, cell.model),
        "radius": f"{cell.radius:g}" if cell.radius else "–",
        "cell": TITLES[cell.attack, cell.defence],
        "msssim": plus_minus(msssim, 1.0, 3),
        "accuracy": plus_minus(same, 100.0, 0),
        "sampled": plus_minus(sampled, 100.0, 0),
        "accepted": "–" if math.isnan(rate) else f"{100 * rate:.0f} %",
        "found_by": found_by(cell),
        "failed": cell.failed,
        "seconds": f"{cell.facts['seconds']:.1f} s",
    }


def _published(found: Reproduction) -> dict[str, Any]:
    """The published settings; T and η₀ were published for some data sets only."""
    record = Settings.of_data(found.settings.data, full=True).record()
    known = found.settings.data in KUZINA2022
    ours = {"gradients", "bound_references", "seed", "data"}
    ours |= set() if known else {"transitions", "step_size"}
    return {
        name: value
        for name, value in record.items()
        if name not in ours and not name.startswith("adaptive_")
    }


def _models(found: Reproduction) -> list[tuple[str, str, str]]:
    return [
        (s.training.title, f"{s.loss:.1f}", f"{100 * s.classifier.validation_accuracy:.0f} %")
        for s in found.subjects
    ]
