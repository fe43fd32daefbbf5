"""The published step-size schedule of Kuzina et al. 2022, kept for comparison.

It adapts in every transition, also after burn-in, from an acceptance rate shared by a group of
inputs, so its chain does not leave the posterior exactly invariant.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vaefast import checks
from vaefast.runtime import memory

__all__ = ["KUZINA2022", "GroupStepSize", "group_chunks", "group_of_rows", "require_shared"]

TARGET_ACCEPT = 0.9
RATE = 0.01

# options of `sample` by dataset, from the authors' scripts; 1.5 * steps transitions in all
KUZINA2022: dict[str, dict[str, Any]] = {
    name: {"schedule": "kuzina2022", "steps": steps, "step_size": step_size, "leapfrog": 20}
    for name, steps, step_size in (
        ("mnist", 500, 0.1),
        ("fashion-mnist", 1000, 0.05),
        ("color-mnist", 1000, 0.05),
    )
}


class GroupStepSize:
    """One step size per group: η ← η·(1 + 0.01·(ā − 0.9)/0.9) after every transition.

    ā is the share of accepted proposals among the group's chains. Failed rows do not count.

    Args:
        step_size: [B] η₀, equal within a group; the recursion runs in float64.
        group: [B] int64 in [0, G), the group of each row.
        counted: [B] bool, False for failed rows.

    Source: Kuzina, Welling, Tomczak, "Alleviating adversarial attacks on variational autoencoders
    with MCMC", NeurIPS 2022, and the authors' code (the published values are its constants).
    """

    def __init__(self, step_size: Tensor, group: Tensor, counted: Tensor) -> None:
        self.step_size = step_size.double()
        self._group = group
        self._groups = int(group.max()) + 1
        self._weight = counted.double()
        self._rows = self._sum(self._weight)  # counted rows of each row's group

    def after_warmup(self) -> GroupStepSize:
        """The same rule runs from the first transition to the last."""
        return self

    def update(self, accept_prob: Tensor, accepted: Tensor) -> None:
        """Learn from one transition's share of accepted proposals per row, [B]."""
        mean = self._sum(accepted.double() * self._weight) / self._rows
        factor = 1.0 + RATE * (mean - TARGET_ACCEPT) / TARGET_ACCEPT
        self.step_size = self.step_size * torch.where(self._rows > 0, factor, 1.0)

    def _sum(self, values: Tensor) -> Tensor:
        totals = values.new_zeros(self._groups).index_add(0, self._group, values)
        return totals[self._group]  # [B]


def group_of_rows(group: int | Tensor | None, index: Tensor, *, given: bool) -> Tensor:
    """The group of each row, [B] int64 in [0, G).

    Args:
        group: rows per group (consecutive rows), [B] int64 identifiers, or None: a group per row.
            Identifiers do not say how large their groups are, so a group that is only partly in
            the call goes unnoticed.
        index: [B] int64, the rows' global numbers.
        given: whether the caller passed ``index``; the message then speaks of it.

    Raises:
        ValueError: the rows at hand hold only a part of a group.
    """
    rows = len(index)
    if group is None:
        return torch.arange(rows, device=index.device)
    if isinstance(group, Tensor):
        return _group_by_identifier(group, index)
    size = checks.count(group, "group")
    if rows % size:
        raise ValueError(
            f"group={size} cuts a group: x must hold whole groups of {size} rows, got {rows} rows"
        )
    inside = torch.arange(rows, device=index.device) % size
    first = index[::size].repeat_interleave(size)
    if given and bool(((first % size != 0) | (index != first + inside)).any()):
        raise ValueError(
            f"group={size} cuts a group: index must hold whole groups of {size} consecutive "
            f"numbers (0 to {size - 1}, {size} to {2 * size - 1}, ...); pass group= as an int64 "
            "[B] of group identifiers for any other arrangement"
        )
    return torch.arange(rows, device=index.device) // size


def require_shared(step_size: Tensor, group: Tensor) -> None:
    """One step size per group.

    Raises:
        ValueError: two rows of a group start with different step sizes.
    """
    of_group = step_size.new_zeros(len(step_size)).index_copy(0, group, step_size)
    if not torch.equal(of_group[group], step_size):
        raise ValueError(
            "step_size must be one step_size per group, got rows of a group that differ"
        )


def group_chunks(group: Tensor, bytes_per_row: int) -> Iterator[Tensor]:
    """Row numbers of consecutive chunks within the memory budget; no group is ever cut.

    Raises:
        MemoryError: one group alone exceeds the budget.
    """
    order = torch.argsort(group, stable=True)
    sizes = torch.bincount(group)
    ends = [0, *torch.cumsum(sizes, 0).tolist()]
    largest = int(sizes.max()) if len(sizes) else 1
    if largest > 1:
        memory.require_fits(
            bytes_per_row * largest, f"a group of {largest} rows", "use smaller groups"
        )
    for groups in memory.row_chunks(len(sizes), bytes_per_row * largest):
        yield order[ends[groups.start] : ends[groups.stop]]


def _group_by_identifier(group: Tensor, index: Tensor) -> Tensor:
    if group.dtype != torch.int64 or list(group.shape) != [len(index)]:
        raise ValueError(
            f"group must be a number of rows or an int64 [B] = [{len(index)}] of identifiers, "
            f"got {checks.short(group.dtype)} {list(group.shape)}"
        )
    return torch.unique(group.to(index.device), return_inverse=True)[1]
