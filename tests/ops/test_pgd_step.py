"""pgd_step: the definition, its invariants, and every edge, on every backend."""

import math

import pytest
import torch

import vaefast as vf
from vaefast.bench.cases import SHAPES, images

NORMS = ("linf", "l2")
DTYPES = (torch.float32, torch.float64)
EPS = {"linf": 0.03, "l2": 0.7}


def step(x_adv, grad, x, norm, **kw):
    return vf.pgd_step(x_adv, grad, x, norm=norm, **{"alpha": 0.01, "eps": EPS[norm], **kw})


def expected(x_adv, grad, x, norm, alpha=0.01, eps=None, low=0.0, high=1.0, norm_eps=1e-12):
    """The definition, written down a second time, in float64."""
    x_adv, grad, x = (t.double() for t in (x_adv, grad, x))
    eps = EPS[norm] if eps is None else eps
    alpha, eps, low, high = (
        torch.as_tensor(v, dtype=torch.float64) for v in (alpha, eps, low, high)
    )
    alpha, eps, low, high = (v[:, None] if v.ndim else v for v in (alpha, eps, low, high))
    if norm == "linf":
        delta = (x_adv + alpha * grad.sign() - x).clamp(-eps, eps)
    else:
        length = grad.square().sum(1, keepdim=True).sqrt().clamp(min=norm_eps)
        delta = x_adv + alpha * grad / length - x
        distance = delta.square().sum(1, keepdim=True).sqrt()
        delta = delta * (eps / distance.clamp(min=1e-300)).clamp(max=1.0)
    return (x + delta).clamp(low, high)


def close(result, truth, dtype):
    """Error at most a few units in the last place of values of order one."""
    assert result.dtype == dtype
    assert (result.double() - truth).abs().max().item() <= 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", NORMS)
def test_value_against_float64(backend, norm, dtype, shape):
    data = images(*shape, dtype=dtype)
    result = step(*data, norm, backend=backend)
    if result.numel() == 0:
        assert result.shape == shape
        return
    close(result, expected(*data, norm), dtype)


@pytest.mark.parametrize("D", [15, 16, 17, 64, 1023, 1025, 20011])
@pytest.mark.parametrize("norm", NORMS)
def test_widths_around_the_vectors_and_blocks(backend, norm, D):
    data = images(3, D, dtype=torch.float64)
    close(step(*data, norm, backend=backend), expected(*data, norm), torch.float64)


@pytest.mark.parametrize("norm", NORMS)
def test_error_is_at_most_twice_that_of_eager(backend, norm):
    data = images(129, 1000)
    truth = expected(*data, norm)
    error = (step(*data, norm, backend=backend).double() - truth).abs().max()
    eager = (step(*data, norm, backend="reference").double() - truth).abs().max()
    assert error <= 2 * eager + 2**-23


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["alpha", "eps", "low", "high"])
def test_values_per_row(backend, name, norm, dtype):
    data = images(5, 33, dtype=dtype)
    rows = {"alpha": [0.0, 0.01, 0.2, 1.0, 0.05], "eps": [0.0, 0.01, 0.1, 0.5, 9.0]}
    rows |= {"low": [0.0, 0.1, 0.2, -1.0, -math.inf], "high": [1.0, 0.9, 0.8, 2.0, math.inf]}
    value = torch.tensor(rows[name], dtype=dtype)
    result = step(*data, norm, backend=backend, **{name: value})
    close(result, expected(*data, norm, **{name: value}), dtype)
    if backend == "reference":
        return
    for i in range(5):  # a row alone with its own scalar, bit for bit
        alone = step(
            *(t[i : i + 1] for t in data), norm, backend=backend, **{name: value[i].item()}
        )
        assert torch.equal(alone, result[i : i + 1])


@pytest.mark.parametrize("norm", NORMS)
def test_step_without_bounds_is_the_plain_step(backend, norm):
    x_adv, grad, x = images(4, 50, dtype=torch.float64)
    free = {"eps": math.inf, "low": -math.inf, "high": math.inf, "alpha": 0.3}
    moved = step(x_adv, grad, x, norm, backend=backend, **free) - x_adv
    length = torch.linalg.vector_norm(moved, ord=math.inf if norm == "linf" else 2, dim=1)
    torch.testing.assert_close(length, torch.full((4,), 0.3, dtype=torch.float64))
    assert (moved * grad >= -1e-15).all()  # it ascends


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", NORMS)
def test_zero_gradient_keeps_a_point_of_the_ball(backend, norm, dtype):
    x_adv, grad, x = images(4, 50, dtype=dtype)
    result = step(x_adv, torch.zeros_like(grad), x, norm, backend=backend, eps=100.0)
    close(result, x_adv.double(), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", NORMS)
def test_zero_radius_and_zero_perturbation(backend, norm, dtype):
    x_adv, grad, x = images(4, 50, dtype=dtype)
    assert torch.equal(step(x_adv, grad, x, norm, backend=backend, eps=0.0), x)
    still = step(x, torch.zeros_like(grad), x, norm, backend=backend)
    assert torch.equal(still, x)
    close(step(x, grad, x, norm, backend=backend), expected(x, grad, x, norm), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_bad_input_is_nan_and_nothing_else_moves(backend, place, bad, norm, dtype):
    data = images(4, 37, dtype=dtype)
    clean = step(*data, norm, backend=backend)
    data[place][2, 5] = bad
    result = step(*data, norm, backend=backend)
    others = torch.ones(4, 37, dtype=torch.bool)
    if norm == "l2":
        others[2] = False
    else:
        others[2, 5] = False
    assert result[~others].isnan().all()
    assert torch.equal(result[others], clean[others])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["alpha", "eps", "low", "high"])
def test_a_nan_parameter_makes_its_row_nan(backend, name, norm):
    data = images(3, 20)
    value = torch.tensor([0.01, math.nan, 0.02]) + (1.0 if name == "high" else 0.0)
    result = step(*data, norm, backend=backend, **{name: value})
    if name == "alpha" and norm == "linf":  # alpha only counts where the gradient is not zero
        assert result[1][data.grad[1] != 0].isnan().all()
    else:
        assert result[1].isnan().all()
    assert result[[0, 2]].isfinite().all()


@pytest.mark.parametrize("size", [1e-37, 1e-25, 1e19, 1e36])
def test_gradient_norms_neither_overflow_nor_underflow(backend, size):
    x_adv, grad, x = images(4, 500)
    wide = {"eps": 100.0, "low": -math.inf, "high": math.inf, "alpha": 1.0, "norm_eps": 2e-38}
    scaled = step(x_adv, grad * size, x, "l2", backend=backend, **wide)
    torch.testing.assert_close(
        scaled, step(x_adv, grad, x, "l2", backend=backend, **wide), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e160, 1e300])
def test_float64_norms_neither_overflow_nor_underflow(backend, size):
    x_adv, grad, x = images(4, 500, dtype=torch.float64)
    wide = {"eps": size, "low": -math.inf, "high": math.inf, "alpha": 0.0}
    result = step(x_adv * size * 1e3, grad, x * 0, "l2", backend=backend, **wide)
    length = torch.linalg.vector_norm(result / size, dim=1)
    torch.testing.assert_close(length, torch.ones(4, dtype=torch.float64))


def test_norm_eps_damps_tiny_gradients(backend):
    x_adv, grad, x = images(2, 8, dtype=torch.float64)
    tiny = grad / torch.linalg.vector_norm(grad, dim=1, keepdim=True) * 1e-14
    free = {"eps": 9.0, "low": -9.0, "high": 9.0, "alpha": 1.0, "norm_eps": 1e-12}
    moved = step(x_adv, tiny, x, "l2", backend=backend, **free) - x_adv
    expected_length = torch.full((2,), 0.01, dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.vector_norm(moved, dim=1), expected_length)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", NORMS)
def test_out_and_in_place_give_the_same_bits(backend, norm, dtype):
    x_adv, grad, x = images(9, 130, dtype=dtype)
    fresh = step(x_adv, grad, x, norm, backend=backend)
    out = torch.full_like(x, math.nan)
    assert step(x_adv, grad, x, norm, backend=backend, out=out) is out
    assert torch.equal(out, fresh)
    assert step(x_adv, grad, x, norm, backend=backend, out=x_adv) is x_adv
    assert torch.equal(x_adv, fresh)


@pytest.mark.parametrize("norm", NORMS)
def test_strided_inputs_and_outputs(backend, norm):
    data = images(8, 60)
    truth = step(*(t[::2, ::3].contiguous() for t in data), norm, backend=backend)
    strided = step(*(t[::2, ::3] for t in data), norm, backend=backend)
    assert torch.equal(strided, truth)
    frame = torch.full((8, 60), 7.0)
    step(*(t[::2, ::3] for t in data), norm, backend=backend, out=frame[::2, ::3])
    assert torch.equal(frame[::2, ::3], truth)
    assert (frame == 7.0).sum() == 8 * 60 - truth.numel()  # nothing beside it was written


@pytest.mark.parametrize("norm", NORMS)
def test_images_in_any_memory_format(backend, norm):
    data = [t.view(6, 3, 4, 5) for t in images(6, 60)]
    truth = step(*data, norm, backend=backend)
    last = [t.contiguous(memory_format=torch.channels_last) for t in data]
    torch.testing.assert_close(step(*last, norm, backend=backend), truth, rtol=0, atol=1e-6)
    out = torch.empty_like(last[0])
    assert torch.equal(step(*last, norm, backend=backend, out=out), out)


@pytest.mark.parametrize("norm", NORMS)
def test_same_bits_for_any_cut_and_thread_count(backend, norm):
    data = images(70, 1030)
    whole = step(*data, norm, backend=backend)
    parts = [
        step(*(t[rows] for t in data), norm, backend=backend)
        for rows in (slice(0, 13), slice(13, 70))
    ]
    assert torch.equal(torch.cat(parts), whole)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(step(*data, norm, backend=backend), whole)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["x_adv", "grad", "x", "alpha", "eps", "low", "high"])
@pytest.mark.parametrize("norm", NORMS)
def test_inputs_that_require_grad_are_refused_by_fast_backends_only(backend, norm, name):
    values = dict(zip(("x_adv", "grad", "x"), images(2, 5)))
    values |= {"alpha": torch.full((2,), 0.1), "eps": torch.full((2,), 0.2)}
    values |= {"low": torch.zeros(2), "high": torch.ones(2)}
    values[name].requires_grad_()
    if backend == "reference":
        result = vf.pgd_step(**values, norm=norm, backend=backend)
        assert torch.autograd.grad(result.sum(), values[name])[0].shape == values[name].shape
        return
    message = 'pgd_step is not differentiable; use backend="reference"'
    with pytest.raises(RuntimeError, match=message):
        vf.pgd_step(**values, norm=norm, backend=backend)
    with torch.no_grad():
        vf.pgd_step(**values, norm=norm, backend=backend)


def test_autograd_sees_the_write_in_place(backend):
    weight = torch.ones(3, 4, requires_grad=True)
    x_adv, grad, x = images(3, 4)
    loss = (weight * x_adv).sum()
    with torch.no_grad():
        vf.pgd_step(x_adv, grad, x, alpha=0.1, eps=0.1, out=x_adv, backend=backend)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_an_output_that_overlaps_itself_is_refused(backend):
    data = images(3, 4)
    with pytest.raises(RuntimeError):
        vf.pgd_step(*data, alpha=0.1, eps=0.1, out=torch.zeros(1, 4).expand(3, 4), backend=backend)


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_registered_op_passes_opcheck(backend, norm, requires_grad):
    data, out = images(3, 7), torch.empty(3, 7)
    data.x.requires_grad_(requires_grad)
    rows, elements = [torch.rand(3, 1)] * 4, [*[torch.rand(1, 1)] * 2, *torch.rand(2, 3, 7)]
    for order, given in (("project_clip", []), ("project_clip", rows), ("clip_project", elements)):
        arguments = (out, *data, [0.1, 0.1, 0.0, 1.0], given, norm, order, 1e-12, backend)
        torch.library.opcheck(torch.ops.vaefast.pgd_step.default, arguments)


def flat(images):
    return images


def pictures(images):
    return [t.view(-1, 2, 4, 5) for t in images]


def channels_last(images):
    return [t.contiguous(memory_format=torch.channels_last) for t in pictures(images)]


@pytest.mark.parametrize("layout", [flat, pictures, channels_last])
@pytest.mark.parametrize("norm", NORMS)
def test_compiles_without_graph_breaks_or_recompiling(backend, norm, layout):
    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=False)
    for seed in (0, 1, 2):
        data = layout(images(5, 40, seed=seed))
        with torch._dynamo.config.patch(error_on_recompile=seed > 0):
            result = compiled(*data, norm, backend=backend)
        assert torch.equal(result, step(*data, norm, backend=backend))


def test_compiles_in_place_with_values_per_row(backend):
    def three_steps(x, grad, eps):
        x_adv = x.clone()
        for _ in range(3):
            vf.pgd_step(x_adv, grad, x, alpha=0.1, eps=eps, out=x_adv, backend=backend)
        return x_adv

    torch._dynamo.reset()
    data, eps = images(5, 40), torch.rand(5)
    compiled = torch.compile(three_steps, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(data.x, data.grad, eps), three_steps(data.x, data.grad, eps))


def test_half_precision_runs_on_the_reference_or_says_why():
    data = images(2, 5, dtype=torch.bfloat16)
    assert vf.pgd_step(*data, alpha=0.1, eps=0.1).dtype == torch.bfloat16
    with pytest.raises(TypeError, match='backend "cpp" takes float32 or float64, got bfloat16'):
        vf.pgd_step(*data, alpha=0.1, eps=0.1, backend="cpp")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(2, 6)}, ValueError, r"x must be \[2, 5\] like x_adv, got \[2, 6\]"),
        ({"x": torch.zeros(2, 5).double()}, TypeError, "x must be float32 like x_adv, got float64"),
        ({"grad": "no"}, TypeError, "grad must be a torch.Tensor, got str"),
        ({"x_adv": torch.zeros(5)}, ValueError, r"x_adv must be \[B, \*event\], got \[5\]"),
        ({"x_adv": torch.zeros(2, 5).long()}, TypeError, "x_adv must be floating, got int64"),
        ({"eps": -0.1}, ValueError, "eps must be at least 0, got -0.1"),
        ({"eps": "a"}, TypeError, "eps must be a number, got str"),
        ({"alpha": math.nan}, ValueError, "alpha must be a number, got nan"),
        ({"alpha": math.inf}, ValueError, "alpha must be finite, got inf"),
        ({"eps": torch.ones(2) * 1j}, TypeError, "eps must hold real numbers, got complex64"),
        (
            {"alpha": torch.ones(3)},
            ValueError,
            r"alpha must be a number, \[B\] = \[2\], or one per element .* got \[3\]",
        ),
        ({"low": 1.0, "high": 0.0}, ValueError, "low must not exceed high, got 1.0 and 0.0"),
        ({"order": "clip"}, ValueError, "order must be one of 'project_clip', 'clip_project'"),
        ({"norm": "l1"}, ValueError, "norm must be one of 'linf', 'l2', got 'l1'"),
        ({"norm_eps": 0.0}, ValueError, "norm_eps must be at least 1.18e-38, got 0.0"),
        ({"out": torch.zeros(2, 4)}, ValueError, r"out must be \[2, 5\] like x_adv, got \[2, 4\]"),
        ({"backend": "cuda"}, ValueError, "backend must be one of 'reference', 'cpp', 'triton'"),
    ],
)
def test_errors_say_what_came_and_what_to_do(change, error, message):
    x_adv, grad, x = images(2, 5)
    arguments = {"x_adv": x_adv, "grad": grad, "x": x, "alpha": 0.1, "eps": 0.1, **change}
    with pytest.raises(error, match=message):
        vf.pgd_step(**arguments)


@pytest.mark.parametrize("width", [16, 17])
def test_l2_rows_have_the_same_bits_at_any_alignment(backend, width):
    if backend == "reference":
        pytest.skip("the reference is reproducible to round-off")
    x = torch.rand(3, 3, width, generator=torch.Generator().manual_seed(4))
    truth = vf.pgd_step(*x, alpha=0.1, eps=0.2, norm="l2", backend=backend)
    for first in (0, 1):
        frame = torch.full((3, 3, 64), 7.0)
        images = frame[:, :, first : first + width]
        images.copy_(x)
        out = torch.full((3, 64), 7.0)
        target = out[:, first : first + width]
        result = vf.pgd_step(*images, alpha=0.1, eps=0.2, norm="l2", out=target, backend=backend)
        assert result is target
        assert torch.equal(target, truth)
        assert (out[:, :first] == 7.0).all()
        assert (out[:, first + width :] == 7.0).all()
