"""summary.json: what was run, with what, and what came out; and the writing of all three files."""

from __future__ import annotations

import json
import math
import platform
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from vaefast.audit.columns import write_parquet
from vaefast.audit.run import Audit
from vaefast.models import MLPVAE, VAE, ConvVAE, explain
from vaefast.report.aggregates import aggregate
from vaefast.report.folder import MADE_BY
from vaefast.report.page import render

__all__ = ["describe_model", "summarise", "write_report"]

KINDS: dict[type[VAE], str] = {MLPVAE: "an MLP VAE", ConvVAE: "a convolutional VAE"}
PACKAGES = ("vaefast", "torch", "numpy", "scipy", "matplotlib", "pyarrow", "scikit-learn")


def write_report(
    audit: Audit,
    folder: Path,
    *,
    model: dict[str, Any],
    configuration: dict[str, Any] | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Write report.html, results.parquet and summary.json into an existing folder.

    Args:
        audit: what to write.
        folder: an empty folder.
        model: name and facts of the model, as :func:`describe_model` gives.
        configuration: facts that the audit does not know, such as how the model was trained.
        command: the command line that makes these numbers again.

    Returns:
        The content of summary.json.
    """
    summary = summarise(audit, model, configuration or {}, command)
    write_parquet(folder / "results.parquet", audit.table())
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    page = render(audit, summary["numbers"], summary)
    (folder / "report.html").write_text(page, encoding="utf-8")
    return summary


def summarise(
    audit: Audit, model: dict[str, Any], configuration: dict[str, Any], command: str | None
) -> dict[str, Any]:
    """Plain values only; everything that a clock decides stands under ``timing``."""
    return _finite(
        {
            "made_by": MADE_BY,
            "command": command,
            "seed": audit.settings.seed,
            "model": model,
            "configuration": _configuration(audit) | configuration,
            "versions": versions(),
            "notes": audit.notes,
            "numbers": aggregate(audit),
            "classes": list(audit.classes),
            "columns": {
                c.name: {"unit": c.unit, "meaning": c.meaning, **c.more} for c in audit.table()
            },
            "timing": [asdict(timing) for timing in audit.timings],
        }
    )


def describe_model(vae: VAE) -> dict[str, Any]:
    """The facts about a model that the report names."""
    kind = next((text for known, text in KINDS.items() if isinstance(vae, known)), "this VAE")
    return {
        "name": kind,
        "latents": vae.latent_dim,
        "likelihood": vae.likelihood,
        "prior": "N(0, I)" if vae.prior is None else type(vae.prior).__name__,
        "parameters": sum(parameter.numel() for parameter in vae.parameters()),
        "explanation": str(explain(vae)),
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _configuration(audit: Audit) -> dict[str, Any]:
    settings = asdict(audit.settings)
    if audit.certificate is None:  # of what there is none, nothing is called certified
        settings.pop("certified")
    return {
        "data": audit.data_name,
        "event_shape": list(audit.x.shape[1:]),
        "range": [audit.low, audit.high] if audit.bounded else "none",
        **settings,
        "r": audit.r,
        "r_chosen": "given" if audit.settings.r else "90 % quantile of the unattacked distance",
        **({"msssim": audit.msssim} if audit.msssim else {}),
        "device": str(audit.x.device),
        "threads": torch.get_num_threads(),
    }


def _finite(value: Any) -> Any:
    """JSON knows no NaN: None stands for it."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
