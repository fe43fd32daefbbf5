"""How models that do not lower to the fused ops are run: by eager PyTorch, or by torch.compile."""

from __future__ import annotations

from vaefast import checks

__all__ = ["compiled", "set_generic"]

WAYS = ("eager", "compile")
_way = "eager"


def set_generic(way: str) -> None:
    """Set how modules are run that do not lower to the fused ops.

    Args:
        way: ``"eager"`` (the default), as PyTorch runs them; or ``"compile"``, their values and
            gradients through ``torch.compile``, which takes its time at the first call with a
            model and needs a C++ compiler. Products with Jacobians stay eager, and so does
            everything inside ``vaefast.same_bits()``.

    Raises:
        ValueError: anything else.
    """
    global _way
    _way = checks.option(way, "way", WAYS)


def compiled() -> bool:
    """Whether ``set_generic("compile")`` holds."""
    return _way == "compile"
