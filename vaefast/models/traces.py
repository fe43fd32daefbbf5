"""Traces kept from call to call: structure without weights, weakly by module.

A trace is kept while the module's state is the same objects: submodules, their classes and
forwards, parameters, buffers, hooks, training flags and other attributes. What is inside of other
objects (an entry of a list, a field of a configuration, a global, a helper method) is known to
nobody, so every call compares the networks, with the weights of the moment, with the module's own
results on two of its rows, and where they differ it records the forward anew. A comparison is not
made again where there is nothing to find: inside of ``with vaefast.frozen(vae)``, which promises
that nothing changes, and for modules that consist of torch.nn's own layers and nothing else, whose
forwards depend on that state alone; in both cases as long as the weights' versions stand.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from vaefast.models.comparison import agree, difference, drawn
from vaefast.models.finite_model import check_outputs
from vaefast.models.module_stack import Root
from vaefast.models.plans import CannotLower, LogOf, Plan, Values
from vaefast.models.state import State, watched
from vaefast.models.tracing import trace
from vaefast.models.values import ROWS
from vaefast.runtime import numerics
from vaefast.runtime.distributions import unchecked
from vaefast.runtime.grad_mode import without_grad
from vaefast.types import Network

__all__ = ["networks", "remembered"]

_traces: weakref.WeakKeyDictionary[nn.Module, dict[Any, _Entry]] = weakref.WeakKeyDictionary()


@without_grad
def networks(
    root: Root,
    example: Tensor,
    key: tuple = (),
    values: Callable[[], Tensor] | None = None,
    *,
    seen: tuple[Tensor, ...] = (),
    frozen: bool = False,
) -> list[Network | LogOf | str]:
    """A network, or the reason why there is none, for each tensor that the function returns.

    Args:
        example: [b, *event], floating. The networks of a kept trace are compared on these rows,
            those of a new one on rows drawn like them.
        key: what else the function depends on.
        values: makes such an example, where ``example`` has its shape, dtype and device alone.
        seen: what the function returns for the example, where the caller knows.
        frozen: whether nothing has changed since the last comparison unless versions say so, where
            the module's code is not known to depend on its state alone.

    Raises:
        CannotLower: the forward cannot be recorded at all.
    """
    key = _key(root, example, key)
    kept = {} if root.module is None else _traces.setdefault(root.module, {})
    entry = kept.get(key)
    if entry is None or not entry.fits():
        example = example if values is None else values()
        entry = kept[key] = _Entry(root, example)
    elif not entry.stands(frozen):
        example = example if values is None else values()
        nets = entry.agreed(root, example, seen)
        if nets is not None:
            return nets
        if entry.compare_again(root, example):  # a constant of the trace may be another now
            entry = kept[key] = _Entry(root, example)
    return entry.networks(example)


@without_grad
def remembered(
    root: Root, example: Tensor, key: tuple = (), *, frozen: bool = False
) -> list[Network | LogOf | str] | None:
    """As :func:`networks` where that runs no module: the trace fits and needs no comparison."""
    assert root.module is not None
    entry = _traces.get(root.module, {}).get(_key(root, example, key))
    if entry is None or entry.refusal or not (entry.stands(frozen) and entry.fits()):
        return None
    return entry.networks(example)


def _key(root: Root, example: Tensor, key: tuple) -> tuple:
    return (*key, root.label, example.shape[1:], example.dtype, example.device)


@contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """For a forward whose numbers are to be exact, and whose random draws are nobody's.

    Distributions check their arguments by reading them, which no trace can follow.
    """
    devices = [device] if device.type == "cuda" else []
    with numerics.products(device, "ieee"), torch.random.fork_rng(devices), unchecked():
        yield


class _Entry:
    """One trace, the state that it is of, and the versions of the weights last compared."""

    def __init__(self, root: Root, example: Tensor) -> None:
        self.plans: tuple[Plan | str, ...] = ()
        self.refusal = ""
        self.failures: dict[int, str] = {}
        self.state: State | None = None
        self.ours = root.ours
        self._versions: Any = None
        self._tensors = [] if root.module is None else [*root.module.parameters()]
        rows = drawn(example)
        try:
            if root.module is not None:
                _check_python(root)
                _check_weights(root.module)
            with _undisturbed(example.device):
                traced = trace(root, rows[:ROWS])
        except CannotLower as error:
            self.refusal = error.reason
        else:
            self.plans = traced.plans
            self.compare(root, example, rows, traced.outputs)
        if root.module is not None:  # as a forward leaves it: old weight_norm sets attributes
            self.state = State(root.module)
            self._versions = self.state.versions()

    def fits(self) -> bool:
        return self.state is not None and self.state.fits()

    def stands(self, frozen: bool) -> bool:
        """Whether a comparison would find nothing new in a trace that fits."""
        known = self.ours and self.state is not None and self.state.is_all and not watched()
        return (frozen or known) and self.is_compared()

    def is_compared(self) -> bool:
        """Whether the weights are those of the last comparison, as far as versions tell."""
        if not any(isinstance(plan, Plan) for plan in self.plans):
            return True
        return self._versions is not None and self._versions == self._versions_now()

    def networks(self, example: Tensor) -> list[Network | LogOf | str]:
        if self.refusal:
            raise CannotLower(self.refusal)
        values, nets = self._values(example), list[Network | LogOf | str]()
        for index, plan in enumerate(self.plans):
            if isinstance(plan, str) or index in self.failures:
                nets.append(plan if isinstance(plan, str) else self.failures[index])
            else:
                net = plan.bind(values)
                nets.append(
                    LogOf(net, plan.log_factor, plan.log_reason) if plan.log_factor else net
                )
        return nets

    def agreed(
        self, root: Root, example: Tensor, seen: tuple[Tensor, ...]
    ) -> list[Network | LogOf | str] | None:
        """The networks, where each gives what the module does on the example's rows; else None.

        In their own precision, so a difference may be one of rounding: :meth:`compare_again` tells.
        """
        if self.refusal or (self.failures and not self.is_compared()):
            return None
        nets = self.networks(example)
        made = {index: net for index, net in enumerate(nets) if not isinstance(net, str)}
        if not made:
            return nets
        outputs = seen or _tensors(root.function(example.clone()))
        if len(outputs) != len(nets):
            return None
        pairs = [
            (net.of, _inside(outputs[i], net.factor))
            if isinstance(net, LogOf)
            else (net, outputs[i])
            for i, net in made.items()
        ]
        return nets if agree(pairs, example) else None

    def compare_again(self, root: Root, example: Tensor) -> bool:
        """Whether a network now differs that did not, or that did with other weights."""
        if not self.is_compared():
            self.failures = {}
        known = len(self.failures)
        self.compare(root, example)
        return len(self.failures) > known

    def compare(
        self,
        root: Root,
        example: Tensor,
        rows: Tensor | None = None,
        seen: tuple[Tensor, ...] = (),
    ) -> None:
        """Run the module on two rows, of which the second is another one than in the trace.

        Outputs that are known to differ are not looked at.

        ``seen``: what it returned there, for the first of ``rows``.
        """
        plans = {i: plan for i, plan in enumerate(self.plans) if isinstance(plan, Plan)}
        plans = {i: plan for i, plan in plans.items() if i not in self.failures}
        if not plans:
            return
        rows = drawn(example) if rows is None else rows
        again = rows[[0, ROWS]]
        with _undisturbed(rows.device):
            outputs = _tensors(root.function(again))
            if root.module is not None:
                check_outputs(root.module, *outputs, prefix=root.prefix)
            runs = [(again, outputs)] + ([(rows[:ROWS], list(seen))] if seen else [])
            values = self._values(example)
            for index, plan in plans.items():
                net = plan.bind(values)
                pairs = [(x, out[index]) for x, out in runs if len(out) == len(self.plans)]
                if plan.log_factor:
                    pairs = [(x, _inside(out, plan.log_factor)) for x, out in pairs]
                reasons = [difference(net, *pair) for pair in pairs]
                reasons += [f"now returns {len(outputs)} tensors"] * (len(pairs) < len(runs))
                if reason := next(filter(None, reasons), ""):
                    self.failures[index] = f"{root.label} {reason}"
        self._versions = self._versions_now()

    def _versions_now(self) -> list[tuple[int, int]] | None:
        return None if self.state is None else self.state.versions()

    def _values(self, example: Tensor) -> Values:
        """In the module's dtype where it is in half precision, else in the example's."""
        first = next((t for t in self._tensors if t.is_floating_point()), example)
        dtype = first.dtype if first.element_size() < 4 else example.dtype
        return Values(dtype, example.device)


def _inside(logarithm: Tensor, factor: float) -> Tensor:
    """What the logarithm was taken of, rounded once."""
    return torch.exp(logarithm.double() / factor).to(logarithm)


def _tensors(result: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, Tensor)]


def _check_python(root: Root) -> None:
    """TorchScript runs past the recorder, as a graph of its own."""
    assert root.module is not None
    for name, module in root.module.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            path = ".".join(filter(None, (root.prefix, name)))
            kind = type(module).__name__
            raise CannotLower(f"{f'layer {path!r} ({kind})' if path else kind} is TorchScript")


def _check_weights(module: nn.Module) -> None:
    """Plain dense tensors: quantised, sparse and distributed ones have kernels of their own."""
    for name, t in [*module.named_parameters(), *module.named_buffers()]:
        kind = type(t)
        plain = kind in (Tensor, nn.Parameter, nn.Buffer) and t.layout is torch.strided
        if not plain or t.is_quantized or t.is_meta:
            raise CannotLower(f"{name!r} is no plain tensor: {kind.__name__}, {t.layout}")
