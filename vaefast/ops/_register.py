"""The one way an op is registered: schema, choice of the backend, autograd, shapes for tracing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaefast.ops._autograd import Pulled, differentiable_once, with_biases
from vaefast.ops._schema import Layout, layout_of
from vaefast.ops._transforms import (
    Push,
    active,
    over_probes,
    refuse_tangents,
    refuse_vmap,
    under_transforms,
)
from vaefast.runtime import backends
from vaefast.runtime.grad_mode import without_autocast
from vaefast.runtime.observers import unobserved
from vaefast.types import Network

__all__ = ["Registered", "lazy", "register", "registered"]

PLAIN = (Tensor, torch.nn.Parameter)

library = torch.library.Library("vaefast", "DEF")
registered: dict[str, Registered] = {}


class Registered(NamedTuple):
    """What was registered for an op; its implementations are looked up at each call."""

    call: Any  # the NamedTuple class
    layout: Layout
    implementations: dict[str, Callable[[Any], Any]]


def register(
    call: Any,
    *,
    returns: Any,
    fake: Callable[[Any], Any],
    reference: Callable[[Any], Any],
    cpp: Callable[[Any], Any] | None = None,
    triton: Callable[[Any], Any] | None = None,
    pull: Callable[[Pulled], dict[str, Any]] | None = None,
    derived: tuple[str, ...] = (),
    second: bool = False,
    push: Push | None = None,
    probes: bool = False,
    instead: str = "",
    refused: Callable[[str, Sequence[str]], str] | None = None,
) -> Callable[[Any], Any]:
    """Define ``vaefast::<op>`` and return the function from a checked Call to the op's results.

    The op is named after the module of its Call. That function chooses the backend, and refuses a
    tensor that requires grad where the op has no derivative in it; where the reference was asked
    for by name, it runs in plain sight of autograd, so derivatives of any order are its own. Where
    nothing of torch would see the call, it goes straight to the implementation: the way through
    the dispatcher costs more than a small network.

    Args:
        call: the NamedTuple that lists the op's arguments, the backend last; every implementation
            takes one.
        returns: the type of the results: Tensor, a NamedTuple of tensors, a tuple, or None.
        fake: empty results, for torch.compile and meta tensors.
        reference: the specification; the others are what is fast.
        pull: the first derivative, by name of the argument, of an op that has one.
        derived: fields in which ``pull`` derives.
        second: ``pull`` takes the second result back, which may be the first one's derivative
            [N, n] in the first argument.
        push: the results' tangents, from the first argument's.
        instead: what runs on CUDA where there is no ``triton``, in :func:`supports`' reason.
        refused: (backend, layers) ↦ why it has no kernel of this op for them, "" where it has.
        probes: the second argument holds vectors [..., K, n], of which vmap may make more.
    """
    name = call.__module__.rpartition(".")[2]
    layout = layout_of(call, returns)
    given = {"reference": without_autocast(reference), "cpp": cpp, "triton": triton}
    implementations = {key: value for key, value in given.items() if value is not None}
    registered[name] = Registered(call, layout, implementations)
    library.define(name + layout.schema)
    library.impl(name, _implementation(name, registered[name]), "CompositeExplicitAutograd")
    rebuilt = _rebuilder(call, layout.net)

    def faked(*arguments):
        refuse_tangents(name, arguments)
        return fake(rebuilt(arguments))

    torch.library.register_fake(f"vaefast::{name}", faked, lib=library)
    backends.declare(name, tuple(implementations), instead, refused)
    if pull is not None:
        differentiable_once(name, library, layout.names, rebuilt, pull, second)
    flat = getattr(torch.ops.vaefast, name).default
    batched = over_probes(flat, name) if probes else refuse_vmap(name)
    torch.library.register_vmap(f"vaefast::{name}", batched, lib=library)
    library.impl(name, partial(refuse_vmap(name), None, None), "Batched")  # torch's older vmap
    made = returns if hasattr(returns, "_fields") else None
    return _caller(name, registered[name], derived, made, push)


def _caller(
    name: str, op: Registered, derived: tuple[str, ...], made: Any, push: Push | None
) -> Callable[[Any], Any]:
    run, at, implement = getattr(torch.ops.vaefast, name).default, op.layout.net, _implement(op)
    places, implementations, fields = op.layout.tensors, op.implementations, op.call._fields

    def wants_grad(call):
        for i in places:  # noqa: SIM110 - a generator would take twice the time
            if _requires_grad(call[i]):
                return True
        return False

    def plain(call):
        for i in places:  # noqa: SIM110
            if not _is_plain(call[i]):
                return False
        return True

    def through(call):
        values = list(call)  # torch.compile slices no named tuple in torch 2.6
        layers = () if at is None else values[at].layers
        chosen = backends.resolve(name, call[-1], call[0], layers)
        if torch.is_grad_enabled() and wants_grad(call):
            wanted = [fields[i] for i in places if _requires_grad(call[i])]
            if backends.named(call[-1]) == "reference":
                return implementations["reference"](call)
            _refuse(name, [field for field in wanted if field not in derived], derived)
            if at is not None:
                values[at] = with_biases(values[at])
        if at is None:
            result = run(*values[:-1], chosen)
        else:
            result = run(*values[:at], *values[at], *values[at + 1 : -1], chosen)
        return result if made is None else made(*result)

    transformed = under_transforms(name, implementations, push, through)

    def call_op(call):
        wants = torch.is_grad_enabled() and wants_grad(call)
        if wants or not unobserved() or not plain(call):
            return transformed(call) if active() else through(call)
        layers = () if at is None else call[at].layers
        chosen = backends.resolve(name, call[-1], call[0], layers)
        result = implement(call, chosen)
        return result if made is None or type(result) is made else made(*result)

    return call_op


def _requires_grad(value: Any) -> bool:
    if value is None:
        return False
    if isinstance(value, Tensor):
        return value.requires_grad
    tensors = (*value.weights, *value.biases) if isinstance(value, Network) else value
    for t in tensors:  # noqa: SIM110
        if t is not None and t.requires_grad:
            return True
    return False


def _is_plain(value: Any) -> bool:
    """Nothing but tensors of torch's own two classes that hold what they show."""
    if value is None or type(value) in PLAIN:
        return value is None or not value.is_neg()
    if isinstance(value, Tensor):
        return False
    tensors = (*value.weights, *value.biases, value.packed) if type(value) is Network else value
    for t in tensors:  # noqa: SIM110
        if t is not None and (type(t) not in PLAIN or t.is_neg()):
            return False
    return True


def _refuse(name: str, fields: list[str], derived: tuple[str, ...]) -> None:
    """A fast op without a derivative must not silently cut the graph."""
    if fields:
        where = f" in {', '.join(fields)}" if derived else ""
        raise RuntimeError(f'{name} is not differentiable{where}; use backend="reference"')


def _rebuilder(call: Any, net: int | None) -> Callable[[tuple], Any]:
    """From flat arguments to the Call."""
    if net is None:
        return call._make
    after = net + len(Network._fields)
    return lambda a: call(*a[:net], Network(*a[net:after]), *a[after:])


def _implementation(name: str, op: Registered) -> Callable[..., Any]:
    """What torch calls with flat arguments; it takes no None among results, but an empty tensor."""
    rebuilt, implement = _rebuilder(op.call, op.layout.net), _implement(op)

    def run(*arguments):
        refuse_tangents(name, arguments)
        results = implement(rebuilt(arguments), arguments[-1])
        if type(results) is not tuple:
            return results
        return tuple([arguments[0].new_empty(0) if t is None else t for t in results])

    return run


def _implement(op: Registered) -> Callable[[Any, str], Any]:
    """A backend's implementation, below autograd, whatever backend the Call names."""
    implementations, written = op.implementations, op.layout.written

    def run(call, backend):
        if backend != "reference":
            result = implementations[backend](call)
        else:
            with torch.no_grad():  # below the dispatcher's autograd no graph may be recorded
                result = implementations["reference"](call)
        for t in call[:written]:  # autograd must not use stale values
            if not t.is_inference():
                torch.autograd.graph.increment_version(t)
        return result

    return run


def lazy(op: str) -> Callable[..., Any]:
    """``vaefast.kernels.<op>.<op>``, imported at its first call (triton takes a second to load)."""

    def run(*arguments):
        return getattr(importlib.import_module(f"vaefast.kernels.{op}"), op)(*arguments)

    return run
