"""An op's schema and flat arguments, read from the annotations of its ``Call``."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from torch import Tensor

from vaefast.types import Network

__all__ = ["Layout", "Written", "layout_of"]

Written = Annotated[Tensor, "written"]  # an argument that the op overwrites

TYPES: dict[Any, str] = {
    Tensor: "Tensor {name}",
    Tensor | None: "Tensor? {name}",
    list[Tensor]: "Tensor[] {name}",
    Network: "Tensor[] weights, Tensor?[] biases, str[] layers, Tensor? packed",
    list[float]: "float[] {name}",
    str: "str {name}",
    str | None: "str {name}",  # the backend, chosen by then
    int: "int {name}",
    float: "float {name}",
    bool: "bool {name}",
}


class Layout(NamedTuple):
    """Where an op's arguments stand, as fields of its Call and as torch sees them.

    Args:
        schema: torch's, with the results.
        names: of the flat arguments, the network's four in place of ``net``.
        net: the network's place among the fields, None where there is none.
        tensors: places of the fields that hold tensors.
        written: how many of the first arguments the op overwrites.
    """

    schema: str
    names: tuple[str, ...]
    net: int | None
    tensors: tuple[int, ...]
    written: int


def layout_of(call: Any, returns: Any) -> Layout:
    """The layout of an op with this Call, whose last field is the backend.

    Args:
        call: a NamedTuple class.
        returns: Tensor, a NamedTuple of tensors, ``tuple[Tensor, ...]`` of fixed length, or None.
    """
    hints = get_type_hints(call, include_extras=True)
    kinds = [hints[name] for name in call._fields]
    if call._fields[-1] != "backend":
        raise TypeError(f"the last field of a Call must be backend, got {call._fields[-1]}")
    written = kinds.count(Written)
    if kinds[:written] != [Written] * written:
        raise TypeError("arguments that an op writes must come first")
    parts = [
        f"Tensor({chr(ord('a') + place)}!) {name}"
        if kind == Written
        else TYPES[kind].format(name=name)
        for place, (name, kind) in enumerate(zip(call._fields, kinds))
    ]
    arguments = ", ".join(parts)
    return Layout(
        f"({arguments}) -> {_results(returns)}",
        tuple(part.split()[-1] for part in arguments.split(", ")),
        kinds.index(Network) if Network in kinds else None,
        tuple(
            i
            for i, kind in enumerate(kinds)
            if kind in (Written, Tensor, Tensor | None, list[Tensor], Network)
        ),
        written,
    )


def _results(returns: Any) -> str:
    if returns is None:
        return "()"
    if returns is Tensor:
        return "Tensor"
    count = len(get_args(returns) if get_origin(returns) is tuple else returns._fields)
    return f"({', '.join(['Tensor'] * count)})"
