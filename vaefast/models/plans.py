"""Layers to be: what a trace knows about a network, without the weights' values.

A :class:`Step` is one layer. Its parameters are a function of :class:`Values`, which reads the
module's tensors when a network is made; what is folded into a neighbour is computed there, in
float64. Steps that differ in their activation alone share that function, so they share tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaefast.types import Layer, Network

__all__ = [
    "CannotLower",
    "Constant",
    "LogOf",
    "Parameters",
    "Plan",
    "Step",
    "Values",
    "assemble",
]


class CannotLower(Exception):
    """A forward is no network of known layers; ``reason`` names what stands in the way."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that does not depend on the traced input: a leaf, or an operation on others."""

    tensor: Tensor | None = None
    op: Callable | None = None
    args: tuple = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    part: int | None = None  # of an operation with several results
    shape: tuple[int, ...] = ()


class Values:
    """The tensors as they are now, each computed once; dtype and device are the network's."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        self._made: dict[Any, Any] = {}

    def of(self, constant: Constant) -> Tensor:
        if constant.tensor is not None:
            return constant.tensor.detach()
        key = id(constant)
        if key not in self._made:
            args, kwargs = self._resolved(constant.args), self._resolved(constant.kwargs)
            assert constant.op is not None
            self._made[key] = constant.op(*args, **kwargs)
        made = self._made[key]
        return made if constant.part is None else made[constant.part]

    def pair(self, parameters: Parameters) -> tuple[Tensor, Tensor | None]:
        """Weight and bias in the precision that they have so far."""
        key = id(parameters)
        if key not in self._made:
            self._made[key] = parameters(self)
        return self._made[key]

    def final(self, parameters: Parameters) -> tuple[Tensor, Tensor | None]:
        """Weight and bias as the network carries them."""
        key = id(parameters), "final"
        if key not in self._made:
            weight, bias = self.pair(parameters)
            self._made[key] = self._plain(weight), None if bias is None else self._plain(bias)
        return self._made[key]

    def _plain(self, t: Tensor) -> Tensor:
        return t if t.dtype == self.dtype and t.is_contiguous() else t.to(self.dtype).contiguous()

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, Constant):
            return self.of(value)
        if isinstance(value, tuple | list):
            return type(value)(self._resolved(item) for item in value)
        if isinstance(value, dict):
            return {key: self._resolved(item) for key, item in value.items()}
        return value


Parameters = Callable[[Values], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True, eq=False)
class Step:
    """One layer of a network to be, or its input.

    Args:
        layer: kind, shapes and sizes, as far as the text says them.
        source: the step whose output it takes; None for the network's input.
        parameters: its weight and bias.
        activation: its name, or a constant that is a leaky relu's slope.
        residual: the step whose output is added.
        before: the same step without its activation, where it has one.
    """

    layer: Layer
    source: Step | None = None
    parameters: Parameters | None = None
    activation: str | Constant = "identity"
    residual: Step | None = None
    before: Step | None = None
    variants: dict[Any, Step] = field(default_factory=dict)  # by activation

    @property
    def width(self) -> int:
        return self.layer.out_features

    @property
    def linear(self) -> bool:
        return self.layer.kind == "linear"

    @property
    def open(self) -> bool:
        """Whether rows of its weight can still be scaled, shifted and added to."""
        return self.source is not None and self.activation == "identity" and self.residual is None

    def chain(self) -> list[Step]:
        """The steps from the first layer to this one."""
        steps: list[Step] = []
        step: Step | None = self
        while step is not None and step.source is not None:
            steps.append(step)
            step = step.source
        return steps[::-1]

    def activated(self, activation: str | Constant) -> Step:
        """This step with an activation; the same object each time."""
        if activation not in self.variants:
            self.variants[activation] = replace(
                self, activation=activation, before=self, variants={}
            )
        return self.variants[activation]


class LogOf(NamedTuple):
    """x ↦ factor·log(of(x)): no layer takes logarithms.

    Args:
        of: σ of a module that returns σ, or σ².
        factor: 2 of σ, 1 of σ².
        reason: names where the logarithm was taken.
    """

    of: Network
    factor: float
    reason: str


@dataclass(frozen=True)
class Plan:
    """A whole network to be; ``bind`` reads the weights."""

    parameters: tuple[Parameters, ...]
    texts: tuple[str | Callable[[Values], str], ...]
    log_factor: float = 0.0  # the function is so many times the logarithm of this network
    log_reason: str = ""  # where it was taken

    def bind(self, values: Values) -> Network:
        """The network with the values that the module's tensors have now."""
        pairs = [values.final(parameters) for parameters in self.parameters]
        layers = [text if isinstance(text, str) else text(values) for text in self.texts]
        return Network([w for w, _ in pairs], [b for _, b in pairs], layers)


def assemble(last: Step, unit: Callable[[Step, tuple[int, ...]], Step]) -> Plan:
    """The chain of steps that ends in ``last``; ``unit`` makes a layer that changes nothing, of a
    step and the shape in which its output is added.

    Raises:
        CannotLower: a residual sum takes what is no layer of the chain.
    """
    chain = last.chain()
    if not chain:
        raise CannotLower("there is no layer between input and output")
    indices: dict[int, int] = {id(chain[0].source): -1}
    steps: list[Step] = []
    added = {id(step.residual): step.layer.out_shape for step in chain}
    for step in chain:
        if step.before is not None and id(step.before) in added:  # wanted without its activation
            indices[id(step.before)] = len(steps)
            same = unit(step.before, added[id(step.before)])
            steps += [step.before, same.activated(step.activation)]
        else:
            steps.append(step)
        indices[id(step)] = len(steps) - 1
    parameters, texts = [], []
    for step in steps:
        if step.residual is not None and id(step.residual) not in indices:
            raise CannotLower("adds a branch with layers of its own in a residual sum")
        assert step.parameters is not None
        parameters.append(step.parameters)
        texts.append(_text(step, None if step.residual is None else indices[id(step.residual)]))
    return Plan(tuple(parameters), tuple(texts))


def _text(step: Step, residual: int | None) -> str | Callable[[Values], str]:
    def text(activation: str) -> str:
        return str(step.layer._replace(residual=residual, activation=activation))

    slope = step.activation
    if isinstance(slope, str):
        return text(slope)
    return lambda values: text(f"leaky_relu:{values.of(slope).item()}")
