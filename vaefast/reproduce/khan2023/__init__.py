"""Khan, Storkey 2023: adversarial robustness of VAEs through the lens of local geometry."""

from vaefast.reproduce.khan2023.run import Reproduction, open_store, run
from vaefast.reproduce.khan2023.settings import Settings

__all__ = ["Reproduction", "Settings", "open_store", "run"]
