"""The memory behind a tensor: its own, or that of the tensors which a wrapper holds."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["plain_parts"]

COMPRESSED = {
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_coo: ("_indices", "_values"),
}


def plain_parts(t: Tensor) -> list[Tensor]:
    """The tensors with memory that make up a tensor: itself, or what a wrapper holds.

    Quantised and distributed weights hold others, sparse ones indices and values. Empty for a
    wrapper that does not tell what it holds.
    """
    if hasattr(t, "to_local"):  # distributed; its flattening is for compilers and may raise
        return plain_parts(t.detach().to_local())  # type: ignore[attr-defined]
    if hasattr(t, "__tensor_flatten__"):
        names, _ = t.__tensor_flatten__()
        return [part for name in names for part in plain_parts(getattr(t, name))]
    if t.layout in COMPRESSED:
        return [getattr(t, name)() for name in COMPRESSED[t.layout]]
    try:
        t.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return []
    return [t]
