"""The ATen operations that a network can express: what each does to the values of a trace."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vaefast.functional.activations import SELU_ALPHA, SELU_SCALE
from vaefast.models.folding import (
    ROWS,
    Value,
    convolved,
    fresh,
    image,
    linear,
    pooled,
    ready,
    rescaled,
    settled,
)
from vaefast.models.plans import CannotLower, Constant, Parameters, Step, Values
from vaefast.types import Layer, parse_layer

__all__ = ["FACTORIES", "MOVES", "RULES", "moved"]

aten = torch.ops.aten

# they move elements and compute nothing: run on the index tensor, they say where each came from
_MOVES = (
    "view _unsafe_view reshape _reshape_alias t transpose permute movedim squeeze unsqueeze expand "
    "repeat select slice narrow split split_with_sizes unbind unfold diagonal index index_select "
    "flip roll clone contiguous alias pixel_shuffle pixel_unshuffle channel_shuffle"
)
_FACTORIES = (
    "zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty "
    "new_empty_strided"
)
MOVES, FACTORIES = frozenset(_MOVES.split()), frozenset(_FACTORIES.split())
_RESHAPES = {"view", "_unsafe_view", "_reshape_alias"}

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def moved(name: str, op: Any, value: Value, args: tuple, kwargs: dict[str, Any]) -> Any:
    """A value after an operation that only moves elements; a list where there are several."""
    if name in _RESHAPES:
        result = value.index.reshape(args[0])
    elif name == "clone" or name == "contiguous":
        result = value.index
    else:
        result = op(value.index, *[_index(arg) for arg in args], **kwargs)
    if isinstance(result, Tensor):
        return replace(value, index=result)
    return [replace(value, index=part) for part in result]


def _index(arg: Any) -> Any:
    """Constants among the arguments are part of the structure, as they are now."""
    if isinstance(arg, Constant):
        return Values(torch.float64, torch.device("cpu")).of(arg).cpu()
    if isinstance(arg, list | tuple):
        return [_index(item) for item in arg]
    return arg


@_rule("cat", "concat")
def _cat(parts: list[Any], dim: int = 0) -> Value:
    return _joined(parts, lambda indices: torch.cat(indices, dim))


@_rule("stack")
def _stack(parts: list[Any], dim: int = 0) -> Value:
    return _joined(parts, lambda indices: torch.stack(indices, dim))


def _joined(parts: list[Any], join: Callable[[list[Tensor]], Tensor]) -> Value:
    first = parts[0]
    if not all(isinstance(part, Value) for part in parts):
        raise CannotLower("joins the value with a constant")
    if all(part.step is first.step and part.affine is first.affine for part in parts):
        return replace(first, index=join([part.index for part in parts]))
    steps = [ready(part) for part in parts]
    one = steps[0]
    if not all(_siblings(one, step) for step in steps):
        raise CannotLower("joins the outputs of two layers")
    return _side_by_side(steps, parts, join)


def _siblings(a: Step, b: Step) -> bool:
    alike = a.source is b.source and a.activation == b.activation and a.activation != "maxmin"
    return alike and a.linear and b.linear and a.residual is None and b.residual is None


def _side_by_side(
    steps: list[Step], parts: list[Value], join: Callable[[list[Tensor]], Tensor]
) -> Value:
    """Linear layers on one input as one layer with all their rows."""

    def parameters(values: Values) -> tuple[Tensor, Tensor | None]:
        pairs = [values.pair(step.parameters) for step in steps if step.parameters is not None]
        biases = [w.new_zeros(len(w)) if b is None else b for w, b in pairs]
        return torch.cat([weight for weight, _ in pairs]), torch.cat(biases)

    widths = [step.width for step in steps]
    total, first = sum(widths), steps[0]
    layer = first.layer._replace(out_shape=(total,))
    indices, start = [], 0
    for part, width in zip(parts, widths):
        rows = torch.arange(width) + start
        indices.append(torch.stack([rows, rows + total]).reshape(part.shape))
        start += width
    step = replace(first, layer=layer, parameters=parameters, before=None, variants={})
    return Value(step, join(indices))


# ---- affine maps


def _constant(value: Any) -> tuple[Callable[[Values], Tensor], Tensor]:
    """A number or constant as a function of the values, and a pattern of where it differs."""
    if isinstance(value, Constant):
        shape = value.shape
        return lambda values: values.of(value), torch.arange(1.0, 1 + math.prod(shape)).reshape(
            shape
        )
    if isinstance(value, int | float):
        number = torch.tensor(float(value), dtype=torch.float64)
        return lambda values: number.to(values.device), torch.ones(())
    raise CannotLower("takes a second value that depends on the input")


def _scaled(value: Value, factor: Any) -> Value:
    scale, like = _constant(factor)
    return rescaled(value, scale, None, like)


def _shifted(value: Value, term: Any) -> Value:
    shift, like = _constant(term)
    return rescaled(value, None, shift, like)


@_rule("add")
def _add(a: Any, b: Any, *, alpha: float = 1) -> Value:
    if not isinstance(a, Value):
        return _add(_scaled(b, alpha) if alpha != 1 else b, a)
    if not isinstance(b, Value):
        return _shifted(a, b if alpha == 1 else _times(b, alpha))
    return _sum(a, b if alpha == 1 else _scaled(b, alpha))


@_rule("sub")
def _sub(a: Any, b: Any, *, alpha: float = 1) -> Value:
    return _add(a, b, alpha=-alpha)


@_rule("rsub")
def _rsub(a: Any, b: Any, alpha: float = 1) -> Value:
    return _add(b, a, alpha=-alpha)


@_rule("neg")
def _neg(a: Value) -> Value:
    return _scaled(a, -1.0)


@_rule("mul")
def _mul(a: Any, b: Any) -> Value:
    if isinstance(a, Value) and isinstance(b, Value):
        return _gated(a, b)
    return _scaled(a, b) if isinstance(a, Value) else _scaled(b, a)


@_rule("div")
def _div(a: Any, b: Any) -> Value:
    if not isinstance(a, Value) or isinstance(b, Value):
        raise CannotLower("divides by a value that depends on the input")
    if isinstance(b, Constant):
        return _scaled(a, Constant(op=torch.reciprocal, args=(_double(b),), shape=b.shape))
    return _scaled(a, 1.0 / b)


def _times(term: Any, factor: float) -> Any:
    if isinstance(term, Constant):
        return Constant(op=torch.mul, args=(_double(term), factor), shape=term.shape)
    return term * factor


def _double(constant: Constant) -> Constant:
    return Constant(op=Tensor.double, args=(constant,), shape=constant.shape)


def _gated(a: Value, b: Value) -> Value:
    """x·sigmoid(x) is SiLU; other products of values are no layer."""
    for value, gate in ((a, b), (b, a)):
        step = gate.step
        gates = step.before is value.step and step.activation == "sigmoid"
        plain = torch.equal(value.index, gate.index) and not (value.affine or gate.affine)
        if gates and plain:
            return replace(value, step=value.step.activated("silu"))
    raise CannotLower("multiplies two values that depend on the input")


def _sum(a: Value, b: Value) -> Value:
    """A residual sum: the longer branch adds what the shorter one ends in."""
    if a.shape != b.shape:
        raise CannotLower("adds values of different shapes")
    if a.step is b.step and torch.equal(a.index, b.index) and not (a.affine or b.affine):
        return _scaled(a, 2.0)
    branch, past = sorted((a, b), key=lambda value: -len(value.step.chain()))
    step, earlier = ready(branch), ready(past)
    if not step.open:
        step = settled(fresh(step, tuple(branch.shape[1:]))).step
    if step.width != earlier.width:
        raise CannotLower("adds values of different widths")
    return fresh(replace(step, residual=earlier, variants={}), tuple(branch.shape[1:]))


@_rule("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm")
def _batch_norm(
    value: Value, weight: Any, bias: Any, mean: Any, var: Any, training: bool, _: float, eps: float
) -> list[Any]:
    if training or mean is None:
        raise CannotLower("normalises by the statistics of the batch; call model.eval()")
    return [_normalised(value, weight, bias, mean, var, eps), None, None]


@_rule("_native_batch_norm_legit_no_training")
def _batch_norm_eval(
    value: Value, weight: Any, bias: Any, mean: Any, var: Any, _: float, eps: float
) -> list[Any]:
    return [_normalised(value, weight, bias, mean, var, eps), None, None]


def _normalised(
    value: Value, weight: Any, bias: Any, mean: Constant, var: Constant, eps: float
) -> Value:
    shape = (-1, *(1,) * (value.index.ndim - 2))

    def scale(values: Values) -> Tensor:
        inverse = (values.of(var).double() + eps).rsqrt()
        inverse = inverse if weight is None else inverse * values.of(weight).double()
        return inverse.reshape(shape)

    def shift(values: Values) -> Tensor:
        moved = -values.of(mean).double().reshape(shape) * scale(values)
        return moved if bias is None else moved + values.of(bias).double().reshape(shape)

    like = torch.arange(1.0, 1 + mean.shape[0]).reshape(shape)
    return rescaled(value, scale, shift, like)


# ---- layers with weights


def _plain(weight: Constant, bias: Any) -> Parameters:
    if bias is not None and not isinstance(bias, Constant):
        raise CannotLower("has a bias that depends on the input")
    return lambda values: (values.of(weight), None if bias is None else values.of(bias))


def _transposed(weight: Constant) -> Constant:
    if weight.op is aten.t.default:
        return weight.args[0]
    return Constant(op=aten.t.default, args=(weight,), shape=weight.shape[::-1])


@_rule("linear")
def _linear(value: Any, weight: Any, bias: Any = None) -> Value:
    if not isinstance(value, Value) or not isinstance(weight, Constant):
        raise CannotLower("has weights that depend on the input")
    return linear(value, _plain(weight, bias), weight.shape[0])


@_rule("mm")
def _mm(value: Any, weight: Any) -> Value:
    if not isinstance(value, Value) or not isinstance(weight, Constant):
        raise CannotLower("multiplies two values that depend on the input")
    return _linear(value, _transposed(weight))


@_rule("addmm")
def _addmm(bias: Any, value: Any, weight: Any, *, beta: float = 1, alpha: float = 1) -> Value:
    if (beta, alpha) != (1, 1) or not isinstance(weight, Constant):
        raise CannotLower("is no linear layer")
    if isinstance(bias, Constant) and len(bias.shape) == 1 and bias.shape[0] == weight.shape[1]:
        return _linear(value, _transposed(weight), bias)
    return _add(_mm(value, weight), bias)


@_rule("convolution", "cudnn_convolution", "mkldnn_convolution")
def _convolution(
    value: Any,
    weight: Any,
    bias: Any,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Value:
    if not isinstance(value, Value) or not isinstance(weight, Constant):
        raise CannotLower("has weights that depend on the input")
    axes = len(weight.shape) - 2
    if axes not in (1, 2) or value.index.ndim != axes + 2:
        raise CannotLower(f"is a convolution over {axes} axes")

    def sizes(given: list[int]) -> tuple[int, ...]:
        return tuple(given) * (axes if len(given) == 1 else 1)

    layer = Layer(
        kind="conv_transpose" if transposed else "conv",
        in_shape=tuple(value.shape[1:]),
        out_shape=(),
        stride=sizes(stride),
        padding=sizes(padding),
        dilation=sizes(dilation),
        output_padding=sizes(output_padding) if transposed else (),
        groups=groups,
        kernel=tuple(weight.shape[2:]),
    )
    return convolved(value, _shaped(layer, tuple(weight.shape)), _plain(weight, bias))


def _shaped(layer: Layer, weight_shape: tuple[int, ...] = ()) -> Layer:
    return parse_layer(str(layer), weight_shape)


@_rule("avg_pool2d", "avg_pool1d")
def _avg_pool(
    value: Value,
    kernel: list[int],
    stride: list[int] = (),  # type: ignore[assignment]
    padding: list[int] = (0,),  # type: ignore[assignment]
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Value:
    if ceil_mode or divisor or (any(padding) and not count_include_pad):
        raise CannotLower("averages over incomplete windows")
    axes = value.index.ndim - 2

    def sizes(given: Any) -> tuple[int, ...]:
        return tuple(given) * (axes if len(given) == 1 else 1)

    shape = tuple(value.shape[1:])
    layer = Layer(
        "avg_pool", shape, (), sizes(stride or kernel), sizes(padding), kernel=sizes(kernel)
    )
    return pooled(value, _shaped(layer))


@_rule("_adaptive_avg_pool2d", "adaptive_avg_pool1d")
def _adaptive(value: Value, size: list[int]) -> Value:
    have = value.shape[2:]
    if any(n % m for n, m in zip(have, size)):
        raise CannotLower("averages over windows of different sizes")
    return _avg_pool(value, [n // m for n, m in zip(have, size)])


@_rule("mean")
def _mean(value: Value, dims: list[int] | None = None, keepdim: bool = False) -> Value:
    ndim = value.index.ndim
    if dims is None or sorted(d % ndim for d in dims) != list(range(2, ndim)):
        raise CannotLower("averages over axes that are not the pixels")
    out = _avg_pool(image(value), list(value.shape[2:]))
    return out if keepdim else replace(out, index=out.index.reshape(ROWS, -1))


@_rule("upsample_nearest2d", "upsample_nearest1d", "_upsample_nearest_exact2d")
def _upsample(value: Value, size: list[int], *_: Any) -> Value:
    have = value.shape[2:]
    if any(m % n for n, m in zip(have, size)):
        raise CannotLower("upsamples by no whole factor")
    scale = tuple(m // n for n, m in zip(have, size))
    layer = Layer("upsample_nearest", tuple(value.shape[1:]), (), scale)
    return pooled(value, _shaped(layer))


# ---- activations


def _activated(value: Value, activation: str | Constant) -> Value:
    value = settled(value)
    return replace(value, step=value.step.activated(activation))


def _simple(activation: str) -> Rule:
    return lambda value: _activated(value, activation)


for _name in ("relu", "tanh", "sigmoid", "silu", "mish", "hardswish"):
    RULES[_name] = _simple(_name)


@_rule("gelu")
def _gelu(value: Value, *, approximate: str = "none") -> Value:
    return _activated(value, "gelu" if approximate == "none" else "gelu_tanh")


@_rule("leaky_relu")
def _leaky_relu(value: Value, slope: float = 0.01) -> Value:
    return _activated(value, f"leaky_relu:{float(slope)}")


@_rule("_prelu_kernel", "prelu")
def _prelu(value: Value, slope: Constant) -> Value:
    if math.prod(slope.shape) != 1:
        raise CannotLower("has a slope per channel")
    return _activated(value, slope)


@_rule("elu")
def _elu(value: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Value:
    if math.isclose(alpha, SELU_ALPHA) and math.isclose(scale, SELU_SCALE) and input_scale == 1:
        return _activated(value, "selu")
    if input_scale != 1:
        value = _scaled(value, input_scale)
    if input_scale != 1 and not math.isclose(input_scale * alpha, 1.0):
        raise CannotLower("scales its two sides differently")
    out = _activated(value, f"elu:{float(alpha if input_scale == 1 else 1.0)}")
    scale = scale if input_scale == 1 else scale / input_scale
    return out if scale == 1 else _scaled(out, scale)


@_rule("selu")
def _selu(value: Value) -> Value:
    return _activated(value, "selu")


@_rule("celu")
def _celu(value: Value, alpha: float = 1.0) -> Value:
    return _elu(value, alpha, 1.0, 1.0 / alpha)


@_rule("softplus")
def _softplus(value: Value, beta: float = 1, threshold: float = 20) -> Value:
    if threshold < 20:
        raise CannotLower(f"is the identity above {threshold}")
    if beta == 1:
        return _activated(value, "softplus")
    return _scaled(_activated(_scaled(value, beta), "softplus"), 1.0 / beta)


@_rule("log_sigmoid_forward")
def _log_sigmoid(value: Value) -> list[Any]:
    return [_neg(_activated(_neg(value), "softplus")), None]


@_rule("hardsigmoid")
def _hardsigmoid(value: Value) -> Value:
    return _activated(_shifted(_scaled(value, 1 / 6), 0.5), "clamp:0.0:1.0")


@_rule("hardtanh", "clamp", "clip")
def _clamp(value: Value, low: Any = None, high: Any = None) -> Value:
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    if not (isinstance(low, int | float) and isinstance(high, int | float)):
        raise CannotLower("clamps to tensors")
    if (low, high) == (0, math.inf):
        return _activated(value, "relu")
    return _activated(value, f"clamp:{float(low)}:{float(high)}")


@_rule("clamp_min")
def _clamp_min(value: Value, low: Any) -> Value:
    return _clamp(value, low)


@_rule("clamp_max")
def _clamp_max(value: Value, high: Any) -> Value:
    return _clamp(value, None, high)


@_rule("exp")
def _exp(value: Value) -> Value:
    return _activated(_scaled(value, 2.0), "exp_half")


@_rule("log")
def _log(value: Value) -> Value:
    step = value.step
    if value.affine is None and step.activation == "exp_half" and step.before is not None:
        return _scaled(replace(value, step=step.before), 0.5)
    raise CannotLower("is the logarithm of what is no exponential")


@_rule("maximum")
def _maximum(a: Any, b: Any) -> Value:
    return _of_pairs(a, b, 0)


@_rule("minimum")
def _minimum(a: Any, b: Any) -> Value:
    return _of_pairs(a, b, 1)


def _of_pairs(a: Any, b: Any, second: int) -> Value:
    """The larger or smaller ones of adjacent pairs (2i, 2i + 1) of features are MaxMin's."""
    if not (isinstance(a, Value) and isinstance(b, Value) and a.step is b.step):
        raise CannotLower("compares two values")
    a, b = (a, b) if a.index.flatten()[:1] < b.index.flatten()[:1] else (b, a)
    if a.affine or b.affine or (a.index % 2).any() or not torch.equal(a.index + 1, b.index):
        raise CannotLower("compares values that are no adjacent pairs")
    whole = settled(a)
    if whole.step.width % 2:
        raise CannotLower(f"pairs {whole.step.width} features, an odd number")
    return Value(whole.step.activated("maxmin"), b.index if second else a.index)
