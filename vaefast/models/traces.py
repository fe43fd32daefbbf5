"""Traces kept from call to call: structure without weights, weakly by module.

A trace fits as long as the module's state is the same objects: submodules, their classes and
forwards, parameters, buffers, hooks, training flags and other attributes. Lists and dicts among
the attributes are known by identity, so a change inside of them is not noticed. Weights are read
anew in every call, and compared with the module's own forward unless their versions are those of
the last comparison.
"""

from __future__ import annotations

import weakref
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from vaefast.functional.layers import forward
from vaefast.models.folding import ROWS
from vaefast.models.plans import CannotLower, Plan, Values
from vaefast.models.tracing import Root, trace
from vaefast.runtime import numerics
from vaefast.types import Network

__all__ = ["networks"]

ULPS = 64
SOFTPLUS = 4e-12  # torch's is the identity above 20, which is off by 2e-9 < 64·SOFTPLUS·20
_HELD = (Tensor, int, float, complex, str, bytes, bool, torch.dtype, torch.device, type(None))
_STATE = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")

_traces: weakref.WeakKeyDictionary[nn.Module, dict[Any, _Entry]] = weakref.WeakKeyDictionary()


def networks(root: Root, example: Tensor, key: tuple = ()) -> list[Network | str]:
    """A network, or the reason why there is none, for each tensor that the function returns.

    Args:
        example: [b, *event], floating; its values tell how the rows of a comparison are drawn.
        key: what else the function depends on.

    Raises:
        CannotLower: the forward cannot be recorded at all.
    """
    key = (*key, root.label, example.shape[1:], example.dtype, example.device, _modes())
    kept = None if root.module is None else _traces.setdefault(root.module, {})
    entry = None if kept is None else kept.get(key)
    if entry is not None and entry.fits():
        return entry.networks(root, example)
    entry = _Entry(root, example)
    if kept is not None:
        kept[key] = entry
    return entry.networks(root, example)


def _modes() -> tuple[bool, ...]:
    return torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")


class _State:
    """The objects that a module's forward depends on; those that can die are held weakly."""

    def __init__(self, module: nn.Module) -> None:
        modules = list(module.modules())
        self._modules = [weakref.ref(m) for m in modules]
        values = list(_values(modules))
        self._ids = [id(value) for value in values]
        self._held = [value for value in values if isinstance(value, _HELD)]
        self._weak = [weakref.ref(v) for v in values if _dies(v)]
        self._tensors = [*module.parameters(), *module.buffers()]

    def fits(self) -> bool:
        modules = [reference() for reference in self._modules]
        if None in modules or None in [reference() for reference in self._weak]:
            return False
        return self._ids == [*map(id, _values(modules))]

    def versions(self) -> list[tuple[int, int]] | None:
        """None where a tensor counts no versions, as those of inference mode."""
        try:
            return [(t._version, t.data_ptr()) for t in self._tensors]
        except RuntimeError:
            return None


def _values(modules: list[Any]) -> Any:
    states = [vars(module) for module in modules]
    inner = [state[name] for state in states for name in _STATE]
    classes = [(type(module), type(module).forward) for module in modules]
    return chain.from_iterable([*classes, *map(dict.values, states), *map(dict.values, inner)])


def _dies(value: Any) -> bool:
    if isinstance(value, _HELD):
        return False
    try:
        weakref.ref(value)
    except TypeError:
        return False
    return not isinstance(value, type(_dies.__get__(0)))  # a bound method is new each time


class _Entry:
    """One trace, its state, and the weights' versions of the last comparison that held."""

    def __init__(self, root: Root, example: Tensor) -> None:
        self.plans: tuple[Plan | str, ...] = ()
        self.refusal = ""
        self.compared: Any = None
        self.failures: dict[int, str] = {}
        rows = _drawn(example)
        try:
            with numerics.products(example.device, "ieee"):
                traced = trace(root, rows[:ROWS])
        except CannotLower as error:
            self.refusal = error.reason
        else:
            self.plans = traced.plans
        self.state = None if root.module is None else _State(root.module)
        if not self.refusal and self._any_plan():
            self._compare(root, example, rows, traced.outputs)

    def fits(self) -> bool:
        return self.state is not None and self.state.fits()

    def networks(self, root: Root, example: Tensor) -> list[Network | str]:
        if self.refusal:
            raise CannotLower(self.refusal)
        if self._any_plan() and (self.compared is None or self.compared != self._versions()):
            self._compare(root, example, _drawn(example), ())
        values = Values(*_kind(root, example))
        return [
            plan if isinstance(plan, str) else self.failures.get(index) or plan.bind(values)
            for index, plan in enumerate(self.plans)
        ]

    def _any_plan(self) -> bool:
        return any(isinstance(plan, Plan) for plan in self.plans)

    def _versions(self) -> Any:
        return None if self.state is None else self.state.versions()

    def _compare(self, root: Root, example: Tensor, rows: Tensor, seen: tuple[Tensor, ...]) -> None:
        """Compare with the module on two rows, the second changed since the trace."""
        again = rows[[0, 2]]
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            numerics.products(rows.device, "ieee"),
        ):
            result = root.function(again)
            outputs = [t for t in tree_flatten(result)[0] if isinstance(t, Tensor)]
            runs = [(again, outputs)] + ([(rows[:ROWS], list(seen))] if seen else [])
            values = Values(*_kind(root, example))
            self.failures = {}
            for index, plan in enumerate(self.plans):
                if isinstance(plan, Plan):
                    net = _in_float64(plan.bind(values))
                    reasons = [_difference(net, x, out[index]) for x, out in runs]
                    if reason := next(filter(None, reasons), ""):
                        self.failures[index] = f"{root.label}: {reason}"
        self.compared = self._versions()


def _kind(root: Root, example: Tensor) -> tuple[torch.dtype, torch.device]:
    """The networks' dtype: the module's where it is in half precision, else the example's."""
    parameters = () if root.module is None else root.module.parameters()
    first = next((p for p in parameters if p.is_floating_point()), None)
    half = first is not None and first.element_size() < 4
    return (first.dtype if half and first is not None else example.dtype), example.device


def _in_float64(net: Network) -> Network:
    biases = [None if b is None else b.double() for b in net.biases]
    return Network([w.double() for w in net.weights], biases, net.layers)


def _difference(net: Network, x: Tensor, out: Tensor) -> str:
    """Why the network is not what the module computed, or nothing.

    |network in float64 − module in its dtype| ≤ 64 ulp of the largest intermediate magnitude.
    """
    tape = forward(x.double().flatten(1), net)
    expected, got = tape.out, out.double().reshape(len(x), -1)
    if expected.shape != got.shape:
        return f"returns {got.shape[1]} values per row, its trace {expected.shape[1]}"
    largest = max(_magnitude(t) for t in (x, *tape.pre, *tape.post))
    eps = max(torch.finfo(out.dtype).eps, torch.finfo(x.dtype).eps)
    if any(" softplus" in layer for layer in net.layers):
        eps = max(eps, SOFTPLUS)
    allowed = ULPS * eps * largest
    same = (expected == got) | (expected.isnan() & got.isnan())
    error = torch.where(same, torch.zeros_like(got), (expected - got).abs()).max().item()
    if error <= allowed:
        return ""
    return (
        f"its trace differs from the module by {error:.2g} on random rows, {allowed:.2g} is "
        "allowed; the forward depends on values in a way that one run does not show"
    )


def _magnitude(t: Tensor) -> float:
    finite = torch.where(t.isfinite(), t, torch.zeros_like(t))
    return finite.abs().max().item() if t.numel() else 0.0


def _drawn(example: Tensor) -> Tensor:
    """Three rows that look like the example's, from a generator of their own."""
    generator = torch.Generator().manual_seed(0)
    shape = (ROWS + 1, *example.shape[1:])
    values = example.detach().double()
    spread = values.std().item() if values.numel() > 1 else 0.0
    if not 0.0 < spread < float("inf"):
        rows = torch.rand(shape, generator=generator, dtype=torch.float64)
    else:
        rows = torch.randn(shape, generator=generator, dtype=torch.float64)
        low, high = values.min().item(), values.max().item()
        rows = (values.mean().item() + spread * rows).clamp(low, high)
    return rows.to(example)
