"""Which layers a backend has no kernels for, at all or for one op, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["Refusal", "declare", "of_layers", "of_op"]

Refusal = Callable[[str, Sequence[str]], str]  # of a backend and layers, "" where it takes them

_of_ops: dict[str, Refusal] = {}


def declare(op: str, refusal: Refusal | None) -> None:
    """Record what an op's kernels refuse beside what their backend does."""
    if refusal is not None:
        _of_ops[op] = refusal


def of_op(op: str, backend: str, layers: Sequence[str]) -> str:
    """Why ``backend`` has no kernel of the op for a network of these layers; empty where it has."""
    own = _of_ops.get(op)
    return of_layers(backend, layers) or (own(backend, layers) if own else "")


def of_layers(backend: str, layers: Sequence[str]) -> str:
    """Why ``backend`` has no kernels for a network of these layers; empty where it has."""
    if backend == "reference":
        return ""
    for layer in layers:
        if layer.startswith("linear ") and " +" not in layer:
            continue
        if backend != "cpp":
            return (
                f'backend "{backend}" has no kernel for the layer {layer!r} yet; public functions '
                "run the module, on CUDA in captured graphs"
            )
        if pairs := [layer for layer in layers if layer.endswith(" maxmin")]:
            return f'backend "cpp" has no kernel for {pairs[0]!r} beside layers with pixels'
    return ""
