"""vaefast: fast kernels for the adversarial robustness of variational autoencoders."""

import torch  # noqa: F401 - first, so that vaefast._C shares its OpenMP runtime

from vaefast import backends
from vaefast.backends import supports, use_backend
from vaefast.info import info
from vaefast.memory import set_memory
from vaefast.ops import pgd_step

__version__ = "0.1.0"
__all__ = ["info", "pgd_step", "set_memory", "supports", "use_backend"]

backends.read_environment()
