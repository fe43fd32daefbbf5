"""One forward pass on two rows, recorded operation by operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from vaefast.models.folding import ready, unit
from vaefast.models.module_stack import ModuleStack, Root, module_stack
from vaefast.models.plans import CannotLower, Constant, Plan, Step, assemble
from vaefast.models.recognise import FACTORIES, MOVES, RULES, converted, logarithm, moved
from vaefast.models.values import ROWS, Logarithm, Value, fresh
from vaefast.types import Layer

__all__ = ["Traced", "trace"]


class Traced(NamedTuple):
    """A recorded forward: a plan, or the reason why there is none, per tensor that it returns."""

    plans: tuple[Plan | str, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class _Refused:
    """A value that no layer computes; ``drawn`` where it is random."""

    reason: str
    drawn: bool = False


def trace(root: Root, rows: Tensor) -> Traced:
    """Record ``root.function`` on ``rows`` [ROWS, *event].

    Raises:
        CannotLower: the forward writes to the module or reads values.
    """
    assert len(rows) == ROWS
    with module_stack(root) as label:
        recorder = _Recorder(label)
        recorder.learn(rows, _input(rows))
        try:
            with torch.inference_mode(False), torch.no_grad(), recorder:
                result = root.function(rows)
        except CannotLower:
            raise
        except Exception as error:
            message = str(error).partition("\n")[0]
            raise CannotLower(f"{label()} raises {type(error).__name__}: {message}") from error
    outputs = [leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, Tensor)]
    plans = tuple(_planned(recorder.symbol(t), t, root.label) for t in outputs)
    return Traced(plans, tuple(outputs))


def _input(rows: Tensor) -> Value:
    event = tuple(rows.shape[1:])
    return fresh(Step(Layer("input", event, event)), event)


def _planned(symbol: Any, output: Tensor, label: str) -> Plan | str:
    if isinstance(symbol, _Refused):
        return symbol.reason
    is_log = isinstance(symbol, Logarithm)
    if is_log and symbol.factor not in (1.0, 2.0):
        return symbol.reason
    value = symbol.value if is_log else symbol
    if not isinstance(value, Value):
        return f"what {label} returns does not depend on the input"
    try:
        plan = assemble(ready(value), unit)
        return (
            plan
            if not is_log
            else replace(plan, log_factor=symbol.factor, log_reason=symbol.reason)
        )
    except CannotLower as error:
        return f"the result of {label} {error.reason}"


class _Recorder(TorchDispatchMode):
    """Knows of each tensor what it is: a value, a constant, or refused."""

    def __init__(self, label: ModuleStack) -> None:
        super().__init__()
        self.label = label
        self._known: dict[int, Any] = {}
        self._alive: list[Tensor] = []  # ids stay theirs
        self._sharing: dict[int, list[int]] = {}  # by storage
        self._made: set[int] = set()  # by factories, to be filled

    def learn(self, t: Tensor, symbol: Any) -> None:
        if id(t) not in self._known:
            self._alive.append(t)
            self._sharing.setdefault(t.untyped_storage()._cdata, []).append(id(t))
        self._known[id(t)] = symbol

    def symbol(self, t: Tensor) -> Any:
        if id(t) not in self._known:
            self.learn(t, Constant(tensor=t, shape=t.shape))
        return self._known[id(t)]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        draws = torch.Tag.nondeterministic_seeded in func.tags
        written = self._written(func, args, kwargs, draws)
        given, named = tree_map(self._symbol_of, args), tree_map(self._symbol_of, kwargs)
        leaves = tree_flatten((given, named))[0]
        traced = [leaf for leaf in leaves if isinstance(leaf, Value | Logarithm | _Refused)]
        symbols = self._traced(func, given, named, traced) if traced and not draws else None
        result = func(*args, **kwargs)
        if traced and not any(isinstance(t, Tensor) for t in tree_flatten(result)[0]):
            self._read(func, traced)
            return result
        if draws:
            symbols = self._drawn(func)
        elif not traced:
            symbols = self._constants(func, given, named, result, bool(written))
        self._assign(result, symbols)
        for t in written:
            self._overwrite(t, symbols)
        return result

    def _symbol_of(self, arg: Any) -> Any:
        return self.symbol(arg) if isinstance(arg, Tensor) else arg

    def _written(self, func: Any, args: tuple, kwargs: dict[str, Any], draws: bool) -> list[Tensor]:
        """Tensors that the operation changes, if they are the forward's own."""
        if not func._schema.is_mutable:
            return []
        named = {spec.name: arg for spec, arg in zip(func._schema.arguments, args)} | kwargs
        written = [
            named[spec.name]
            for spec in func._schema.arguments
            if spec.alias_info is not None and spec.alias_info.is_write and spec.name in named
        ]
        for t in written:
            known = self._known.get(id(t))
            if draws and id(t) in self._made:
                continue
            if known is None or (isinstance(known, Constant) and known.tensor is t):
                raise CannotLower(
                    f"{self.label()} writes to a parameter or buffer ({func}); call model.eval()"
                )
        return written

    def _drawn(self, func: Any) -> _Refused:
        way_out = self.label.way_out_of_drawing()
        return _Refused(f"{self.label()} draws random numbers ({func}); {way_out}", True)

    def _read(self, func: Any, traced: list[Any]) -> None:
        for leaf in traced:
            if isinstance(leaf, _Refused) and leaf.drawn:
                raise CannotLower(leaf.reason)
        raise CannotLower(f"{self.label()} reads a value that depends on the input ({func})")

    def _traced(self, func: Any, args: tuple, kwargs: dict[str, Any], traced: list[Any]) -> Any:
        name = func._schema.name.removeprefix("aten::")
        name = name.removesuffix("_") if func._schema.is_mutable else name
        try:
            for leaf in traced:
                if isinstance(leaf, _Refused):
                    return leaf
            if name in FACTORIES:
                return None
            if logarithms := [leaf for leaf in traced if isinstance(leaf, Logarithm)]:
                first = logarithms[0]
                return logarithm(name, func, args, kwargs, first) or _Refused(first.reason)
            if name == "detach":
                raise CannotLower("cuts the value out of the autograd graph")
            if name in ("_to_copy", "to"):
                return converted(args[0], kwargs)
            if name == "copy":
                return args[1] if isinstance(args[1], Value) else _Refused(self._refusal(func))
            if name in MOVES and isinstance(args[0], Value):
                return moved(name, func, args[0], args[1:], kwargs)
            if name not in RULES:
                return _Refused(self._refusal(func))
            result = RULES[name](*args, **_known_options(kwargs))
            if isinstance(result, Logarithm):
                reason = f"{self.label()} is the logarithm of what is no exponential ({func})"
                return replace(result, reason=reason)
            return result
        except CannotLower as error:
            return _Refused(f"{self.label()} {error.reason} ({func})")
        except (TypeError, ValueError, RuntimeError):
            return _Refused(self._refusal(func))

    def _refusal(self, func: Any) -> str:
        return f"{self.label()} has no fused form ({func})"

    def _constants(
        self, func: Any, args: tuple, kwargs: dict[str, Any], result: Any, writes: bool
    ) -> Any:
        op = _without_writing(func) if writes else func
        if isinstance(result, Tensor):
            return Constant(op=op, args=args, kwargs=kwargs, shape=result.shape)
        if not isinstance(result, tuple | list):
            return None
        return [
            Constant(op=op, args=args, kwargs=kwargs, part=part, shape=t.shape)
            if isinstance(t, Tensor)
            else None
            for part, t in enumerate(result)
        ]

    def _assign(self, result: Any, symbols: Any) -> None:
        if isinstance(result, Tensor):
            one = symbols[0] if isinstance(symbols, list) else symbols
            if one is None:
                self._made.add(id(result))
                one = Constant(tensor=result, shape=result.shape)
            self.learn(result, one)
        elif isinstance(result, tuple | list):
            several = symbols if isinstance(symbols, list) else [symbols] * len(result)
            for t, symbol in zip(result, several):
                if isinstance(t, Tensor):
                    self._assign(
                        t, _Refused(f"{self.label()} returns it") if symbol is None else symbol
                    )

    def _overwrite(self, t: Tensor, symbol: Any) -> None:
        """The tensor holds what was written; tensors that share its memory are not followed."""
        stale = _Refused(f"{self.label()} writes in place into a tensor with views")
        for other in self._sharing[t.untyped_storage()._cdata]:
            if other != id(t) and isinstance(self._known[other], Value | _Refused | Constant):
                self._known[other] = stale
        self._known[id(t)] = symbol


def _known_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name != "memory_format"}


def _without_writing(func: Any) -> Callable[..., Any]:
    def run(first: Tensor, *args: Any, **kwargs: Any) -> Any:
        return func(first.clone(), *args, **kwargs)

    return run
