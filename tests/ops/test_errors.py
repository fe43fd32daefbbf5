"""Each argument of an op that is wrong in type, shape, dtype or device: one line that names it."""

import inspect

import pytest
import torch
from samples import SAMPLES, Shape

from vaefast import ops

CONVERTED = ("step", "r", "alpha", "eps", "radius")  # numbers or one per row, of any real dtype
SWITCHES = ("full", "drift")  # any object is true or false
FIRST = {sample.op: sample for sample in reversed(SAMPLES)}


def everything(sample):
    return sample.make(torch.float64, Shape())


def wrong_shape(t):
    return t[..., None, None]


def wrong_dtype(t):
    return t.to(torch.complex64)


def other_dtype(t):
    return t.to(torch.float16 if t.is_floating_point() else torch.int32)


def other_device(t):
    return t.to("meta")


WRONG = (wrong_shape, wrong_dtype, other_dtype, other_device)
TENSORS = [
    (sample, name, wrong)
    for sample in FIRST.values()
    for name, value in everything(sample).items()
    for wrong in WRONG
    if isinstance(value, torch.Tensor)
    and not (name in CONVERTED and wrong in (other_dtype, other_device))
    and not (name in ("index", "A") and wrong is other_device)  # it is moved, or all there is
]
NAMES = [
    (sample, name)
    for sample in FIRST.values()
    for name in inspect.signature(getattr(ops, sample.op)).parameters
    if name not in SWITCHES
]


def assert_one_line_names(sample, name, value):
    arguments = {**everything(sample), "backend": None, name: value}
    with pytest.raises((TypeError, ValueError)) as raised:
        getattr(ops, sample.op)(**arguments)
    message = str(raised.value)
    assert name in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("sample", "name", "wrong"), TENSORS, ids=lambda v: getattr(v, "op", getattr(v, "__name__", v))
)
def test_a_tensor(sample, name, wrong):
    assert_one_line_names(sample, name, wrong(everything(sample)[name]))


@pytest.mark.parametrize(("sample", "name"), NAMES, ids=lambda v: getattr(v, "op", v))
def test_an_object_of_no_use(sample, name):
    assert_one_line_names(sample, name, object())


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("field", ["weights", "biases"])
@pytest.mark.parametrize("op", [op for op, sample in FIRST.items() if "net" in everything(sample)])
def test_a_tensor_of_the_network(op, field, wrong):
    net = everything(FIRST[op])["net"]
    changed = list(getattr(net, field))
    changed[1] = wrong(changed[1])
    arguments = {**everything(FIRST[op]), "net": net._replace(**{field: changed})}
    with pytest.raises((TypeError, ValueError), match=rf"^.*net\.{field}\[1\].*$"):
        getattr(ops, op)(**arguments)
