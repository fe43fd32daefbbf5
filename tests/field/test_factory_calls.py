"""Every factory call names its device and its dtype, whatever the user's defaults are.

With ``torch.set_default_device("cuda")`` a model on the CPU was packed into another device's
memory, and the process died; with another default dtype numbers lost digits. Here the source is
searched for calls that leave either open; test_other_defaults.py calls the functions.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FACTORIES = {
    *("as_tensor", "asarray", "bartlett_window", "blackman_window", "empty", "empty_permuted"),
    *("empty_strided", "eye", "full", "hamming_window", "hann_window", "kaiser_window"),
    *("linspace", "logspace", "normal", "ones", "rand", "randn", "range", "scalar_tensor"),
    *("sparse_coo_tensor", "tensor", "zeros"),
}
WHOLE = {"arange", "randint", "randperm", "tril_indices", "triu_indices"}  # int64, of whole numbers
DEVICE_ONLY = {"Generator"}
NEITHER = {"Tensor", "FloatTensor", "DoubleTensor", "HalfTensor", "LongTensor", "IntTensor"}
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("vaefast", "kernels", "bench")
    for path in (ROOT / folder).rglob("*.py")
)


def unnamed(source: str) -> list[str]:
    """The lines with a factory call that leaves its device or its dtype to a default."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "torch"):
            continue
        name, given = node.func.attr, {keyword.arg for keyword in node.keywords}
        if None in given or name not in FACTORIES | WHOLE | DEVICE_ONLY | NEITHER:
            continue  # **options are looked at where they are made, by the reader
        lacking = ({"device", "dtype"} if _floating(node) else {"device"}) - given
        if lacking or name in NEITHER:
            found.append(f"line {node.lineno}: torch.{name} lacks {', '.join(sorted(lacking))}")
    return found


def _floating(call: ast.Call) -> bool:
    """Whether the result's dtype may be the default one."""
    numbers = [a.value for a in ast.walk(call) if isinstance(a, ast.Constant)]
    whole = call.func.attr in WHOLE and not any(isinstance(n, float) for n in numbers)
    return not whole and call.func.attr not in DEVICE_ONLY


@pytest.mark.parametrize("file", FILES)
def test_factory_calls_name_device_and_dtype(file):
    assert not unnamed((ROOT / file).read_text())


@pytest.mark.parametrize(
    "call",
    [
        "torch.zeros(3, dtype=torch.int64)",
        "torch.empty((2, 2), device=x.device)",
        "torch.Generator()",
        "torch.FloatTensor(3)",
        "torch.arange(3)",
        "torch.arange(1.0, n, device=x.device)",
        "f(torch.tensor(1.0))",
    ],
)
def test_the_search_finds(call):
    assert unnamed(call)


@pytest.mark.parametrize(
    "call",
    [
        "torch.zeros(3, dtype=d, device=x.device)",
        "torch.arange(n, device=x.device)",
        "x.new_zeros(3)",
        "torch.zeros_like(x)",
    ],
)
def test_the_search_lets_pass(call):
    assert not unnamed(call)
