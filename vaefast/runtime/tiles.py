"""How many rows a GPU program works on: chosen from the batch, or pinned, and with it the bits."""

from __future__ import annotations

from vaefast import checks

__all__ = ["TILES", "check_tile", "pinned", "pinned_tile", "set_tile"]

TILES = (16, 32, 64, 128)
_tile: int | None = None


def set_tile(tile: int | None) -> None:
    """Pin the tile of all ops on networks that are given none (default None: unpinned).

    On CUDA a row's bits may depend on the tile, which follows the batch where it is not pinned;
    results then say ``reproducible="round-off"``, and ``"bits"`` where it is. The CPU has no tiles.

    Args:
        tile: 16, 32, 64 or 128 rows; narrow ones fill a GPU with few rows, wide ones read the
            weights less often.

    Raises:
        TypeError, ValueError: something else.
    """
    global _tile
    _tile = None if tile is None else check_tile(tile)


def check_tile(tile: int | None) -> int:
    """The tile as a registered op takes it: 0 where the launcher chooses."""
    if tile is None:
        return _tile or 0
    return checks.option(checks.count(tile, "tile"), "tile", TILES)


def pinned() -> bool:
    """Whether ``set_tile`` holds."""
    return _tile is not None


def pinned_tile() -> int | None:
    """What ``set_tile`` holds, None where nothing."""
    return _tile
