"""Networks, points of balls around their inputs, and what bounds of displacements must hold."""

import torch

from vaefast import ops
from vaefast.bench.cases import network
from vaefast.functional import network as passes
from vaefast.functional.displacement import FORMS, Displacement, displacement_ellipsoid
from vaefast.functional.displacement_intervals import intervals
from vaefast.functional.multipliers import _balanced, _deviation, levels

NETS = {  # widths, activations, residual sums
    "relu": ((12, 10, 8, 4), "relu,relu,identity", {}),
    "tanh": ((12, 10, 8, 4), "tanh,tanh,identity", {}),
    "sigmoid and softplus": ((12, 10, 8, 6, 4), "sigmoid,softplus,relu,identity", {}),
    "leaky relu and elu": ((12, 10, 8, 4), "leaky_relu:0.1,elu:1.3,softplus", {}),
    "silu and gelu": ((6, 10, 8, 4), "silu,gelu,identity", {}),
    "gelu_tanh, mish, selu": ((12, 10, 8, 8, 4), "gelu_tanh,mish,selu,identity", {}),
    "hardswish and clamp": ((12, 10, 8, 4), "hardswish,clamp:-0.5:0.5,exp_half", {}),
    "exp_half": ((12, 10, 8, 4), "exp_half,elu:0.5,identity", {}),
    "pairs": ((12, 10, 8, 4), "maxmin,maxmin,identity", {}),
    "pairs and others": ((12, 10, 8, 4), "tanh,maxmin,maxmin", {}),
    "one layer": ((12, 4), "tanh", {}),
    "one hidden layer": ((4, 30, 2), "relu,identity", {}),
    "affine between": ((12, 10, 8, 6, 4), "relu,identity,tanh,identity", {}),
    "residual": ((8, 8, 8, 8, 4), "relu,identity,silu,identity", {1: -1, 2: 0}),
    "residual of pairs": ((8, 8, 8, 8, 4), "maxmin,relu,maxmin,identity", {0: -1, 2: 1}),
}


def draw(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(name, gain=1.0, seed=0):
    widths, activations, sums = NETS[name]
    net = network(widths, activations, seed=seed)
    layers = list(net.layers)
    for at, k in sums.items():
        layers[at] = layers[at].replace("linear ", f"linear +{k} ")
    return net._replace(layers=layers, weights=[gain * w for w in net.weights])


def trained(net):
    """Some steps of fitting random outputs."""
    weights = [w.clone().requires_grad_() for w in net.weights]
    x, y = draw(1, 64, net.in_features), draw(2, 64, net.out_features)
    optimiser = torch.optim.Adam(weights, 0.02)
    for _ in range(60):
        optimiser.zero_grad()
        (passes.evaluate(x, net._replace(weights=weights)) - y).square().mean().backward()
        optimiser.step()
    return net._replace(weights=[w.detach() for w in weights])


def worst(net):
    """Weights of ±1, no biases: pre-activations of 0, saturated units, copies of units."""
    weights = [w.sign() for w in net.weights]
    weights[0] = torch.cat((weights[0][:1] * 0, weights[0][1:2], weights[0][1:-1]))
    return net._replace(weights=weights, biases=[None] * len(weights))


def inside(x, radius, points, seed=0):
    """Points of the balls: on the sphere, near the centre, and along axes, [B, points, D]."""
    v = draw(seed, len(x), points, x.shape[1])
    v[:, : points // 8] *= 0.0
    v[:, : points // 8, 0] = 1.0 - 2.0 * (torch.arange(points // 8) % 2)
    v = v / v.norm(dim=2, keepdim=True)
    generator = torch.Generator().manual_seed(seed)
    inner = points - points // 2
    v[:, points // 2 :] *= torch.rand(inner, 1, generator=generator, dtype=torch.float64)
    return x.unsqueeze(1) + 0.999999 * radius[:, None, None] * v


def ascended(x, points, radius, moved, steps=12):
    """The same points after steps of projected gradient ascent on ``moved``'s norm."""
    for _ in range(steps):
        points = points.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(moved(points).norm(dim=2).sum(), points)
        size = gradient.norm(dim=2, keepdim=True).clamp(min=1e-300)
        delta = points.detach() - x.unsqueeze(1) + 0.7 * radius[:, None, None] * gradient / size
        most = 0.999999 * radius[:, None, None] / delta.norm(dim=2, keepdim=True)
        points = x.unsqueeze(1) + delta * most.clamp(max=1.0)
    return points.detach()


def displaced(x, net, scale):
    """Points [B, n, D] to scaled displacements [B, n, m]."""
    base = passes.evaluate(x, net).unsqueeze(1)
    at = lambda points: passes.evaluate(points.flatten(0, 1), net)  # noqa: E731
    return lambda points: (at(points).unflatten(0, points.shape[:2]) - base) * scale.unsqueeze(1)


def cases(name):
    """The network at random, trained and worst-case weights, at inputs among which kinks are."""
    net = made(name)
    for one in (net, trained(net), worst(net), made(name, gain=4.0, seed=3)):
        x = draw(5, 3, net.in_features)
        x[0] = 0.0
        yield one, x, 0.3 + draw(6, 3, net.out_features).abs()


def assert_above(net, x, scale, radius, points, steps=12):
    moved = displaced(x, net, scale)
    where = inside(x, radius, points)
    where = torch.cat((where, ascended(x, where[:, :200], radius, moved, steps)), 1)
    y = moved(where)
    groups = 2 if y.shape[2] % 2 == 0 else 1
    most = y.unflatten(2, (groups, -1)).norm(dim=3).amax(1)
    whole, engine = y.norm(dim=2).amax(1), Displacement(x, net, scale)
    for form in FORMS:
        bound = ops.net_displacement_bound(x, radius, net, scale=scale, groups=groups, form=form)
        assert (most <= bound).all(), f"{form}: {(most / bound).max():.6f}"
        assert (whole <= engine.bound(radius, form)[:, 0]).all(), form
    assert_intervals(engine, net, x, radius, where)
    Q = displacement_ellipsoid(x, radius, net, scale)
    inside_q = torch.linalg.solve_ex(Q + 1e-30 * torch.eye(Q.shape[-1]), y.mT).result.mT * y
    assert (inside_q.sum(2).nan_to_num(0) <= 1 + 1e-6).all()


def assert_intervals(engine, net, x, radius, where):
    """Every pre-activation, secant and range of the walk holds at the points."""
    walk = engine.walk
    found = intervals(walk, slice(0, len(x)), radius)
    known = levels(walk, slice(0, len(x)), radius, found)
    tape = passes.forward(where.flatten(0, 1), net)
    for index, layer_map in enumerate(walk.maps):
        if layer_map.curve is None:
            continue
        low, high, line = (
            t if i == 2 else t.unsqueeze(1) for i, t in enumerate(found.units(index))
        )
        start = walk.anchors(index, slice(None)).unsqueeze(1)
        there = layer_map.units(tape.pre[index]).unflatten(0, where.shape[:2])
        u, room = there - start, 1e-13 * (1 + there.abs() + start.abs())
        assert (u <= high + room).all()
        assert (u >= low - room).all()
        level, curve = known[index], layer_map.curve
        chosen = torch.arange(u.shape[2]).expand(len(x), -1) if level.units is None else level.units
        of_chosen = chosen.unsqueeze(1).expand(-1, u.shape[1], -1)
        assert (u.gather(2, of_chosen).abs() <= level.reach.unsqueeze(1) + room.amax()).all()
        spread = torch.zeros_like(level.slope).scatter_(1, chosen, level.spread)
        moved_by = curve.value(there) - curve.value(start)
        room = room * (1 + moved_by.abs())
        rest = moved_by - line.slope.unsqueeze(1) * u - line.shift.unsqueeze(1)
        assert (rest.abs() <= line.error.unsqueeze(1) + 4 * room).all()
        rest = moved_by - level.slope.unsqueeze(1) * u
        assert (rest.abs() <= spread.unsqueeze(1) * u.abs() + 4 * room).all()
        assert_ellipsoid_of_deviations(level, rest.gather(2, of_chosen), radius, room.amax())


def assert_ellipsoid_of_deviations(level, deviations, radius, rounding):
    """(N e)(N e)ᵀ ≼ R² Q, also where the columns of N differ by orders of magnitude."""
    sizes = 10.0 ** (2.0 * draw(8, deviations.shape[2]))
    N = draw(9, len(deviations), 3, deviations.shape[2]) * sizes
    balanced = N * _balanced(level, N).unsqueeze(1)
    own = N * (level.own[:, None] * level.inverse).sqrt().unsqueeze(1)
    for Q in (_deviation(level, N), balanced @ balanced.mT, own @ own.mT):
        assert_contains(Q, N, deviations, radius, rounding * sizes.norm())


def assert_contains(Q, N, deviations, radius, rounding):
    y = N @ deviations.mT  # [b, 3, points]
    for d in (y, draw(10, *y.shape)):
        most = radius[:, None] ** 2 * (d * (Q @ d)).sum(1)
        room = rounding * d.norm(dim=1)
        assert ((d * y).sum(1).abs() <= (1 + 1e-9) * most.sqrt() + room).all()


def assert_exact(net, x, radius, form):
    scale = 0.1 + draw(1, len(x), net.out_features).abs()
    J = torch.stack(
        [
            torch.autograd.functional.jacobian(lambda t: passes.evaluate(t, net), row[None])[
                0, :, 0
            ]
            for row in x
        ]
    )
    exact = radius * torch.linalg.matrix_norm(scale.unsqueeze(2) * J, 2)
    bound = ops.net_displacement_bound(x, radius, net, scale=scale, form=form)[:, 0]
    assert (bound >= exact * (1 - 1e-14)).all()
    torch.testing.assert_close(bound, exact, rtol=1e-8, atol=0)
