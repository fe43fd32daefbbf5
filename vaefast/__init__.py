"""vaefast: fast kernels for the adversarial robustness of variational autoencoders.

Submodules and names load at their first use: importing vaefast costs nothing but this file.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaefast import (
        attacks,
        certify,
        data,
        geometry,
        hmc,
        jobs,
        metrics,
        models,
        ops,
        training,
    )
    from vaefast.models import VAE, as_vae, explain
    from vaefast.models.lowering import CannotLower, lower
    from vaefast.models.packs import frozen
    from vaefast.ops import supports
    from vaefast.ops.pgd_step import pgd_step
    from vaefast.runtime.backends import use_backend
    from vaefast.runtime.batching import same_bits, set_block
    from vaefast.runtime.environment import info
    from vaefast.runtime.memory import set_memory
    from vaefast.runtime.modules import set_generic
    from vaefast.runtime.tiles import set_tile
    from vaefast.types import Network

__version__ = "0.1.0"
__all__ = [
    "VAE",
    "CannotLower",
    "Network",
    "as_vae",
    "attacks",
    "certify",
    "data",
    "explain",
    "frozen",
    "geometry",
    "hmc",
    "info",
    "jobs",
    "lower",
    "metrics",
    "models",
    "ops",
    "pgd_step",
    "same_bits",
    "set_block",
    "set_generic",
    "set_memory",
    "set_tile",
    "supports",
    "training",
    "use_backend",
]

_HOMES = {
    "CannotLower": "vaefast.models.lowering",
    "Network": "vaefast.types",
    "VAE": "vaefast.models",
    "as_vae": "vaefast.models",
    "explain": "vaefast.models",
    "frozen": "vaefast.models.packs",
    "info": "vaefast.ops",
    "lower": "vaefast.models.lowering",
    "pgd_step": "vaefast.ops",
    "same_bits": "vaefast.runtime.batching",
    "set_block": "vaefast.runtime.batching",
    "set_generic": "vaefast.runtime.modules",
    "set_memory": "vaefast.runtime.memory",
    "set_tile": "vaefast.runtime.tiles",
    "supports": "vaefast.ops",
    "use_backend": "vaefast.runtime.backends",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'vaefast' has no attribute {name!r}")
    home = _HOMES.get(name)
    value = (
        importlib.import_module(f"vaefast.{name}")
        if home is None
        else getattr(importlib.import_module(home), name)
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if os.environ.get("VAEFAST_REQUIRE"):  # a missing backend is an error now, not at the first call
    importlib.import_module("vaefast.runtime.backends").require(os.environ["VAEFAST_REQUIRE"])
