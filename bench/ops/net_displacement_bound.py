"""``net_displacement_bound``: both forms of an encoder's bound beside the H×H products in them."""

from __future__ import annotations

from functools import partial

import torch

from vaefast import ops
from vaefast.bench.ops import _nets as nets
from vaefast.bench.place import Place
from vaefast.bench.runner import Benchmark, Case

__all__ = ["cases"]

WIDTHS = (16, 256, 256, 784)  # of a decoder; the encoder has them from the last to the first
RADIUS = 0.2
AT_ONCE = 16  # matrices of one product
PRODUCTS = {"affine": 1, "smaller": 11}  # of H×H matrices, an input


def cases(place: Place) -> list[Case]:
    """The encoder of math's certificates, one evaluation at one radius."""
    shapes = place.table((WIDTHS,), (WIDTHS,), ((2, 6, 6, 9),))
    return [
        (f"{form} {activation}", partial(case, place, widths, activation, form))
        for widths in shapes
        for activation in ("relu", "tanh")
        for form in ("affine", "smaller")
    ]


def case(place: Place, widths: tuple[int, ...], activation: str, form: str) -> Benchmark:
    net, B = nets.encoder(nets.Shape(widths, activation), place.device), place.size(64, 3)
    x = place.pixels(B, net.in_features)
    scale = place.normal(B, net.out_features, seed=1).exp_()
    H, products = max(widths[1:-1]), PRODUCTS[form]
    square = torch.zeros(H, H, dtype=torch.float64, device=place.device)

    def bound(backend: str | None = None) -> torch.Tensor:
        return ops.net_displacement_bound(
            x, RADIUS, net, scale=scale, groups=2, form=form, backend=backend
        )

    return Benchmark(
        op="net_displacement_bound",
        case=f"{'-'.join(map(str, widths[::-1]))} {activation} B={B} {form} {place.device}",
        providers={
            "vaefast": bound,
            "reference": partial(bound, "reference"),
            **nets.ceiling(
                place, lambda: [nets.product(AT_ONCE * H, square)], products * B // AT_ONCE
            ),
        },
        bytes=nets.weight_bytes(net) + 16 * B * products * H * H,
        flop=2 * B * products * H**3,
        **place.held_to("ieee"),
    )
