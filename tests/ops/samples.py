"""One list of samples per op, which drives every test that all ops pass.

Those are test_samples.py, test_errors.py, test_same_bits.py, test_error_rule.py and test_fuzz.py.
A new op is tested by all of them because it is listed here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

import vaefast as vf
from vaefast import ops
from vaefast.bench.cases import images, network, posterior
from vaefast.ops._register import registered
from vaefast.runtime.backends import Support
from vaefast.runtime.defaults import default_device
from vaefast.types import LIKELIHOODS

__all__ = ["SAMPLES", "SHAPES", "Sample", "Shape", "same"]

Arguments = dict[str, Any]


class Shape(NamedTuple):
    """B inputs with C chains each, and a decoder."""

    B: int = 3
    C: int = 2
    widths: tuple[int, ...] = (3, 8, 6, 10)
    activations: str = "tanh,silu,identity"
    seed: int = 0

    def draw(self, dtype: torch.dtype, *shape: int) -> torch.Tensor:
        generator = torch.Generator(device="cpu").manual_seed(self.seed)
        drawn = torch.randn(shape, generator=generator, device="cpu", dtype=torch.float64)
        return drawn.to(default_device(), dtype)


SHAPES = {  # each takes other routes through the C++ kernels
    "one copy of the weights": Shape(41, 1, (32, 512, 512, 784), "tanh,tanh,identity"),
    "odd widths": Shape(41, 1, (17, 101, 334, 300), "relu,maxmin,identity"),
    "one layer": Shape(41, 1, (5, 7), "sigmoid"),
    "deep sums": Shape(41, 1, (700, 9), "identity"),
    "pixels": Shape(41, 1, (5, 72), "mixed"),
    "convolutions": Shape(23, 1, (9, 784), "published"),  # several blocks of rows
}


class Sample(NamedTuple):
    """One way to call an op.

    Args:
        op: its name.
        label: what is special about it.
        make: a dtype and a shape to fresh arguments by name.
        batched: the arguments with a multiple of B rows.
        spoiled: the one whose last row a test spoils, and the rows of the first result that this
            makes NaN; None where no row is ever NaN.
        dtypes: those that the op takes.
    """

    op: str
    label: str
    make: Callable[[torch.dtype, Shape], Arguments]
    batched: tuple[str, ...]
    spoiled: tuple[str, slice] | None = None
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64)

    def call(self, arguments: Arguments, backend: str | None) -> tuple[torch.Tensor, ...]:
        """The results; those of an op that writes are what it wrote, in copies."""
        if self.op == "leapfrog_step":
            written = {name: arguments[name].clone() for name in ("z", "p")}
            ops.leapfrog_step(**{**arguments, **written}, backend=backend)
            return written["z"], written["p"]
        result = getattr(ops, self.op)(**arguments, backend=backend)
        return (result,) if isinstance(result, torch.Tensor) else tuple(result)

    def supports(self, arguments: Arguments, backend: str) -> Support:
        """Whether the backend takes these arguments' network."""
        layers = arguments["net"].layers if "net" in arguments else ()
        return vf.supports(self.op, backend, layers=layers)

    def cut(self, arguments: Arguments, B: int, rows: slice) -> Arguments:
        """The arguments of some of the B inputs."""
        parts = {name: part(arguments[name], B, rows) for name in self.batched}
        return {**arguments, **parts}


def part(t: torch.Tensor, B: int, rows: slice) -> torch.Tensor:
    """The rows of some of B inputs, of which each has as many as the others."""
    count = len(t) // B
    return t[rows.start * count : rows.stop * count]


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal bits; any NaN is like any other."""
    if not a.is_floating_point():
        return torch.equal(a, b)
    bits = torch.int32 if a.dtype == torch.float32 else torch.int64
    a, b = (torch.where(t.isnan(), torch.nan, t).contiguous().view(bits) for t in (a, b))
    return torch.equal(a, b)


def _case(dtype: torch.dtype, s: Shape):
    return posterior(s.B, s.C, widths=s.widths, activations=s.activations, dtype=dtype, seed=s.seed)


def _ramp(low: float, high: float, like: torch.Tensor) -> torch.Tensor:
    return torch.linspace(low, high, len(like), dtype=like.dtype)


def _forward(dtype: torch.dtype, s: Shape) -> Arguments:
    z, _, net = _case(dtype, s)
    return {"z": z, "net": net}


def _probes(name: str, end: int, own: bool) -> Callable[[torch.dtype, Shape], Arguments]:
    def make(dtype: torch.dtype, s: Shape) -> Arguments:
        z, _, net = _case(dtype, s)
        rows = (len(z), 2) if own else (3,)
        return {"x": z, name: s.draw(dtype, *rows, s.widths[end]), "net": net, "full": own}

    return make


def _gram(dtype: torch.dtype, s: Shape) -> Arguments:
    """An encoder: wide in, few out."""
    case, d = _case(dtype, s), min(s.widths[0], 6)
    names = s.activations.replace("maxmin", "tanh")  # which takes any width
    net = network((*s.widths[:0:-1], d), names, dtype=dtype, seed=s.seed)
    return {"x": case.x, "net": net, "inv_std": 1 + s.draw(dtype, s.B, d).abs()}


def _displacement(form: str) -> Callable[[torch.dtype, Shape], Arguments]:
    def make(dtype: torch.dtype, s: Shape) -> Arguments:
        given = _gram(dtype, s)
        radius, scale = _ramp(0.01, 0.5, given["x"]).double(), given.pop("inv_std")
        given |= {"radius": radius, "scale": scale, "groups": 2 - scale.shape[1] % 2}
        return given | {"form": form}

    return make


def _potential(likelihood: str, *params: float) -> Callable[[torch.dtype, Shape], Arguments]:
    def make(dtype: torch.dtype, s: Shape) -> Arguments:
        like = {"likelihood": likelihood, "likelihood_params": params}
        case = _case(dtype, s)
        if likelihood != "gaussian" and case.net.activations[-1] == "sigmoid":
            case = case._replace(net=case.net.with_epilogue("identity"))  # logits
        return case._asdict() | like

    return make


def _pixels(likelihood: str, *params: float) -> Callable[[torch.dtype, Shape], Arguments]:
    def make(dtype: torch.dtype, s: Shape) -> Arguments:
        z, x, net = _case(dtype, s)
        out = ops.net_forward(z, net, backend="reference")
        return {"out": out, "x": x, "likelihood": likelihood, "likelihood_params": params}

    return make


def _trajectory(likelihood: str, *params: float) -> Callable[[torch.dtype, Shape], Arguments]:
    def make(dtype: torch.dtype, s: Shape) -> Arguments:
        target = _potential(likelihood, *params)(dtype, s)
        z = target["z"]
        state = {"z": z, "p": z.flip(0), "grad": z.sin()}
        moves = {"step": _ramp(1e-4, 1e-2, z), "inv_mass": 1 + s.draw(dtype, s.B, z.shape[1]) ** 2}
        return target | state | moves | {"leapfrog": 3}

    return make


def _root(dtype: torch.dtype, s: Shape) -> torch.Tensor:
    d = s.widths[0]
    return torch.eye(d, dtype=dtype) + 0.5 / max(d, 1) * s.draw(dtype, s.B, d, d)


def _dense(make: Callable[[torch.dtype, Shape], Arguments]) -> Callable:
    """With a dense mass in place of the diagonal one."""

    def dense(dtype: torch.dtype, s: Shape) -> Arguments:
        given = make(dtype, s)
        del given["inv_mass"]
        return given | {"root": _root(dtype, s)}

    return dense


def _adjoint(likelihood: str, *params: float) -> Callable[[torch.dtype, Shape], Arguments]:
    def make(dtype: torch.dtype, s: Shape) -> Arguments:
        given = _trajectory(likelihood, *params)(dtype, s)
        given["upstream"], given["upstream_p"] = given.pop("grad"), given["z"].cos()
        return given | {"accepted": torch.arange(len(given["z"])) % 5 != 1}

    return make


def _chain(dtype: torch.dtype, s: Shape) -> Arguments:
    target = _potential("bernoulli")(dtype, s)
    U, grad = ops.net_potential(**target, backend="reference")
    moves = {"step": _ramp(1e-3, 1e-2, target["x"]), "index": torch.arange(s.B) + 1000}
    numbers = {"leapfrog": 2, "steps": 3, "thin": 1, "jitter": 0.3, "seed": 3}
    mass = 1 + s.draw(dtype, s.B, s.widths[0]) ** 2
    return target | {"U": U, "grad": grad, "inv_mass": mass} | moves | numbers


def _decode(dtype: torch.dtype, s: Shape) -> Arguments:
    """Radii that about half of the samples hit; 0 would leave the hits to rounding."""
    z, _, net = _case(dtype, s)
    std = 0.1 + z.abs()
    centre, moved = (ops.net_forward(mean, net, backend="reference") for mean in (z, z + 0.9 * std))
    own = {"mean": z, "std": std, "centre": centre, "r": 1e-6 + (moved - centre).norm(dim=1)}
    return own | {"net": net, "index": torch.arange(len(z)), "samples": 30}


def _leapfrog(dtype: torch.dtype, s: Shape) -> Arguments:
    z = _case(dtype, s).z
    mass = 1 + s.draw(dtype, s.B, z.shape[1]) ** 2
    return {"z": z, "p": z.flip(0), "grad": z.sin(), "step": _ramp(0, 1, z), "inv_mass": mass}


def _pgd(norm: str, per_row: bool = False) -> Callable[[torch.dtype, Shape], Arguments]:
    def make(dtype: torch.dtype, s: Shape) -> Arguments:
        data = images(s.B, s.widths[-1], dtype=dtype, seed=s.seed)
        alpha = _ramp(0.05, 0.3, data.x) if per_row else 0.1
        return data._asdict() | {"alpha": alpha, "eps": 0.2, "norm": norm}

    return make


def _matrices(dtype: torch.dtype, s: Shape) -> Arguments:
    root = s.draw(dtype, s.B, 6, 6)
    return {"A": root @ root.mT}


# rows that are spoiled: the last one, and those of the two chains of the last input
LAST, OF_LAST = slice(-1, None), slice(-2, None)
BALLS = ("x", "radius", "scale")
STATE, ROWS = ("z", "p", "grad", "step"), ("mean", "std", "centre", "r", "index")
ADJOINT = ("z", "p", "upstream", "upstream_p", "accepted", "x", "step", "inv_mass")
CHAIN, IMAGES = ("z", "U", "grad", "x", "step", "inv_mass", "index"), ("x_adv", "grad", "x")
LIKES = [(name, 0.4) if name == "gaussian" else (name,) for name in LIKELIHOODS]
SAMPLES = [
    Sample("net_forward", "", _forward, ("z",), ("z", LAST)),
    Sample("net_jvp", "shared", _probes("v", 0, own=False), ("x",), ("x", LAST)),
    Sample("net_jvp", "own", _probes("v", 0, own=True), ("x", "v"), ("v", LAST)),
    Sample("net_vjp", "shared", _probes("u", -1, own=False), ("x",), ("x", LAST)),
    Sample("net_vjp", "own", _probes("u", -1, own=True), ("x", "u"), ("u", LAST)),
    Sample("net_jacobian_gram", "", _gram, ("x", "inv_std"), ("x", LAST)),
    *(
        Sample("net_displacement_bound", form, _displacement(form), BALLS, ("x", LAST))
        for form in ("affine", "smaller")
    ),
    *(Sample("net_potential", i[0], _potential(*i), ("z", "x"), ("z", LAST)) for i in LIKES),
    *(Sample("log_likelihood", i[0], _pixels(*i), ("out", "x"), ("x", OF_LAST)) for i in LIKES),
    *(
        Sample("net_trajectory", i[0], _trajectory(*i), (*STATE, "x", "inv_mass"), ("p", LAST))
        for i in LIKES[:2]
    ),
    *(Sample("net_trajectory_vjp", i[0], _adjoint(*i), ADJOINT, ("upstream", LAST)) for i in LIKES),
    Sample("net_trajectory", "dense", _dense(_trajectory("bernoulli")), (*STATE, "x", "root")),
    Sample("net_chain", "", _chain, CHAIN),
    Sample("net_chain", "dense", _dense(_chain), (*CHAIN[:5], "root", "index")),
    Sample("decode_distance", "", _decode, ROWS),
    Sample("leapfrog_step", "", _leapfrog, (*STATE, "inv_mass"), ("grad", LAST)),
    Sample("pgd_step", "l2", _pgd("l2"), IMAGES, ("grad", LAST)),
    Sample("pgd_step", "l2 per row", _pgd("l2", True), (*IMAGES, "alpha"), ("x", LAST)),
    Sample("pgd_step", "linf", _pgd("linf"), IMAGES),
    Sample("eigenvalue_bound", "", _matrices, ("A",), ("A", LAST), (torch.float64,)),
]


def flat_arguments(sample, arguments):
    """What the registered op is given in a call of the public function."""
    given, implementations = [], registered[sample.op].implementations
    reference = implementations["reference"]
    implementations["reference"] = lambda call: given.append(call) or reference(call)
    try:
        sample.call(arguments, "reference")
    finally:
        implementations["reference"] = reference
    net, call = registered[sample.op].layout.net, given[-1]
    return list(call) if net is None else [*call[:net], *call[net], *call[net + 1 :]]
