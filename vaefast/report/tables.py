"""The report's tables: what each number means, in plain words, with its unit."""

from __future__ import annotations

from typing import Any, NamedTuple

from vaefast.audit.columns import describe_input
from vaefast.audit.progress import Timing, human
from vaefast.audit.run import Audit
from vaefast.report.words import FIRST_ORDER, attack_name, number, percent

__all__ = ["AttackRow", "NumberRow", "StageRow", "attack_rows", "number_rows", "stage_rows"]

Numbers = dict[str, Any]
PLAIN = {
    "robust_probability": "Chance that an unattacked reconstruction stays within r",
    "robust_probability_lower": "The same, lower bound",
    "margin_certified": "Margin, certified",
    "margin_whitened": f"Margin, whitened ({FIRST_ORDER})",
    "margin_first_order": f"Margin, Frobenius ({FIRST_ORDER})",
    "encoder_frobenius_norm": "Overall sensitivity of the encoder",
    "encoder_spectral_norm": "Largest sensitivity of the encoder",
    "encoder_spectral_norm_whitened": "Largest sensitivity, in posterior widths",
    "reconstruction_spectral_norm": "Largest sensitivity of the reconstruction",
    "pullback_spectral_radius": "Top eigenvalue of the pullback metric",
    "pullback_entropy": "Entropy of the pullback metric",
    "reconstruction_error": "Reconstruction error",
    "msssim_resampled": "Similarity of two samples' reconstructions",
    "clean_msssim_defended": "Similarity before and after the defence",
    "distance_resampled": "Distance of two samples' reconstructions",
    "clean_distance_defended": "Distance before and after the defence",
    "clean_defence_accept_rate": "Accepted HMC proposals",
    "clean_defence_divergent": "Divergent HMC transitions",
}


class NumberRow(NamedTuple):
    name: str
    median: str
    quartiles: str
    unit: str
    meaning: str


class AttackRow(NamedTuple):
    name: str
    of_inputs: str
    of_reconstructions: str
    defended: str
    accuracy: str
    accuracy_defended: str
    degradation: str
    accepted: str
    failed: int


class StageRow(NamedTuple):
    name: str
    seconds: str
    share: float  # of the longest stage, 0 to 1
    inputs: str
    work: str


def number_rows(numbers: Numbers) -> list[NumberRow]:
    """Median and quartiles over the inputs of what was measured on the clean inputs."""
    rows = []
    for key, name in PLAIN.items():
        summary = numbers["clean"].get(key)
        if summary:
            guarantee, images = numbers["guarantee"], numbers["images"]
            unit, meaning = describe_input(
                key, guarantee, images=images, certificate=numbers["certificate"]
            )
            quartiles = f"{number(summary['q25'])} to {number(summary['q75'])}"
            rows.append(NumberRow(name, number(summary["median"]), quartiles, unit, meaning))
    return rows


def attack_rows(numbers: Numbers) -> list[AttackRow]:
    return [_attack_row(attack, numbers["measure"]) for attack in numbers["attacks"].values()]


def _attack_row(attack: Numbers, measure: str) -> AttackRow:
    def mean(key: str) -> float | None:
        return attack[key]["mean"] if attack.get(key) else None

    degradation = attack["likelihood_degradation"]
    return AttackRow(
        name=attack_name(attack),
        of_inputs=number(mean(f"{measure}_input"), 2),
        of_reconstructions=number(mean(measure), 2),
        defended=number(mean(f"{measure}_defended"), 2),
        accuracy=percent(mean("accuracy")),
        accuracy_defended=percent(mean("accuracy_defended")),
        degradation=percent(degradation["median"]) if degradation else "–",
        accepted=percent(mean("defence_accept_rate")),
        failed=attack["failed"],
    )


def stage_rows(audit: Audit) -> list[StageRow]:
    longest = max((timing.seconds for timing in audit.timings), default=1.0)
    return [_stage_row(timing, longest) for timing in audit.timings]


def _stage_row(timing: Timing, longest: float) -> StageRow:
    return StageRow(
        name=timing.stage,
        seconds=f"{timing.seconds:.1f} s",
        share=timing.seconds / max(longest, 1e-9),
        inputs=f"{human(timing.inputs / max(timing.seconds, 1e-9))} inputs/s",
        work="" if timing.unit == "inputs" else f"{human(timing.per_second)} {timing.unit}/s",
    )
