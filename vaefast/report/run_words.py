"""What a run's numbers promise, and its findings, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vaefast.certify import Guarantee
from vaefast.report.findings import Tile
from vaefast.report.run_numbers import Measured, RunNumbers
from vaefast.report.words import number, percent

__all__ = ["Cost", "RunFacts", "findings", "guarantee_of", "named", "promise", "sound", "tiles"]


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        rows: inputs that this is the time of.
        seconds: of workers by stage.
        processor_seconds: the same times the threads of each worker, all stages together.
        rate: rows a second, all processes together, None where that is not known.
    """

    rows: int
    seconds: Mapping[str, float]
    processor_seconds: float
    rate: float | None = None

    @property
    def hours_per_million(self) -> float:
        """Processor-hours of a million inputs."""
        return self.processor_seconds / 3600.0 * 1e6 / max(1, self.rows)


@dataclass(frozen=True)
class RunFacts:
    """What a table does not say of its run.

    Attributes:
        data, model: names of them.
        task: what was computed.
        guarantee: what its values promise, "" where nothing.
        r: radii.
        alpha: error probability.
        level: whether alpha is that of each "input" or of the whole "run".
        fingerprint: of all that decides a number.
        settings: of the run, by name.
        classes: their names, empty where they are numbers.
        box: smallest and largest valid entry.
        images: whether inputs are.
        notes: what must be said of the data.
        statements: further ones that were asked for, with what they promise.
        cost: what it took.
        command: what makes the numbers again.
    """

    data: str
    model: str
    task: str
    guarantee: str = ""
    r: tuple[float, ...] = ()
    alpha: float = 1e-3
    level: str = "input"
    fingerprint: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    box: tuple[float, float] = (0.0, 1.0)
    images: bool = True
    notes: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    cost: Cost | None = None
    command: str = ""

    @property
    def scale(self) -> str:
        return "pixel scale" if self.images else "data scale"


def guarantee_of(facts: RunFacts) -> Guarantee | None:
    """The margins' guarantee; None where there is none of ours."""
    return next((one for one in Guarantee if one.value == facts.guarantee), None)


def sound(facts: RunFacts) -> bool:
    """Whether the margins may be called certified."""
    found = guarantee_of(facts)
    return found is not None and found.sound


def promise(facts: RunFacts, rows: int) -> str:
    """What the numbers of a run promise, in one sentence."""
    found = guarantee_of(facts)
    if facts.task == "robust_probability":
        return f"The lower bounds of the probabilities hold {_with(facts, rows)}."
    if facts.task == "empirical_margin":
        return (
            "An empirical margin is the smallest change that an attack was found to need: an upper "
            "limit of what could be certified, and no certificate."
        )
    if found is None and facts.guarantee:
        return f"What the numbers promise: {facts.guarantee}."
    if found is None:
        return "These are measurements; they promise nothing about inputs that were not tried."
    if found is Guarantee.LIPSCHITZ and "lipschitz" in str(facts.settings.get("method", "")):
        return f"The certified radii are {found}; no draw is behind them."
    if found.sound:
        return (
            f"The certified radii hold {_with(facts, rows)}, up to the rounding of a forward pass."
        )
    return f"These margins are no certificates: {found}."


def _with(facts: RunFacts, rows: int) -> str:
    """With which probability, over the draws, and of what."""
    several = len(facts.r) > 1
    radii = f" and all {len(facts.r)} r" if several else ""
    of = f"for all {rows} inputs{radii} together"
    if facts.level != "run":
        of = f"for each input{' at all ' + str(len(facts.r)) + ' r' if several else ''} by itself"
    text = f"{of} with probability at least 1 − α over the draws, α = {facts.alpha:g}"
    if facts.level != "run" and rows > 1:
        text += f" (of {rows} inputs up to {number(facts.alpha * rows, 2)} may be expected wrong)"
    return text


def named(column: Measured, facts: RunFacts) -> str:
    """``r = 4`` where there are several, else what the value is."""
    if column.r:
        return f"r = {column.r}"
    return "certified radius" if sound(facts) else column.name.replace("_", " ")


def tiles(numbers: RunNumbers, facts: RunFacts) -> list[Tile]:
    """The figures at the head of the page."""
    found = []
    for column in (numbers.of("margin") or numbers.of("p_lower"))[:3]:
        what = "certified radius" if sound(facts) else "margin"
        at = f" at r = {column.r}" if column.r else ""
        if column.name == "p_lower":
            what, at = "probability to stay within r, lower bound", at
        median = column.spread.quantile(0.5)
        hint = f", ℓ2, {facts.scale}" if column.name == "margin" else ""
        suffix = "" if column.name == "p_lower" or sound(facts) else f" ({facts.guarantee})"
        found.append(Tile(number(median, 3), f"median {what}{at}{hint}{suffix}"))
    if found and numbers.of("margin"):
        column = numbers.of("margin")[0]
        share = 1.0 - column.zero / column.spread.count if column.spread.count else None
        what = "a certified radius above 0" if sound(facts) else "a margin above 0"
        what += f" at r = {column.r}" if column.r else ""
        found.append(Tile(percent(share), f"of the inputs have {what}"))
    if facts.cost is not None and facts.cost.seconds:
        hours = number(facts.cost.hours_per_million, 2)
        found.append(Tile(hours, "processor-hours per million inputs"))
    return found[:4]


def findings(numbers: RunNumbers, facts: RunFacts) -> list[str]:
    """Sentences below the tiles; the first is what the numbers promise."""
    found = [promise(facts, numbers.rows), *facts.statements]
    good = numbers.rows - numbers.failed
    if numbers.failed == numbers.rows:
        found.append(f"All {numbers.rows} inputs failed; the reasons stand below.")
    elif numbers.failed:
        found.append(
            f"{numbers.failed} of {numbers.rows} inputs failed and are in no other number; the "
            f"reasons stand below. The shares are of the {good} others."
        )
    for column in numbers.of("margin"):
        if column.zero and column.spread.count:
            at = f" at r = {column.r}" if column.r else ""
            found.append(
                f"{column.zero} of {column.spread.count} inputs have no margin{at}: it abstained."
            )
    if facts.cost is not None and facts.cost.rate:
        found.append(f"{number(facts.cost.rate)} inputs a second were finished.")
    return found
