"""A VAE whose maps have Lipschitz constants that are set beforehand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from vaefast import checks
from vaefast.models.calls import check_event_shape, check_sizes
from vaefast.models.lipschitz.constants import Constants
from vaefast.models.lipschitz.export import as_torch_layers, enforce_constant
from vaefast.models.lipschitz.exported import ExportedLipschitzVAE
from vaefast.models.lipschitz.layers import (
    BallOfStd,
    BjorckLinear,
    LogVariance,
    initialise,
    layers_of,
    network,
    set_constant,
)
from vaefast.models.vae import VAE
from vaefast.runtime.defaults import default_device
from vaefast.runtime.grad_mode import without_autocast

__all__ = ["LipschitzVAE"]

DEFAULT = 5.0  # of a constant that is left to be chosen
SIGMOID = 0.25  # its Lipschitz constant


class LipschitzVAE(VAE):
    """A VAE of three multilayer perceptrons, mean, σ and decoder, with constants that are set.

        ‖g(z) − g(z')‖ ≤ a‖z − z'‖,   ‖μ(x) − μ(x')‖ ≤ b‖x − x'‖,   ‖σ(x) − σ(x')‖ ≤ c‖x − x'‖

    Linear layers are orthonormalised by Björck's iteration and scaled by the n-th root of their
    network's constant, activations are MaxMin; σ ends in a sigmoid and, where ``std_norm`` is
    given, in a projection onto the ball ‖σ‖₂ ≤ ``std_norm``. A constant that is None is 5 until
    ``vf.training.fit(vae, x, certified_radius=, r=)`` chooses it. What a certificate rests on are
    the spectral norms that the weights have (:func:`vaefast.models.lipschitz_constants`).

    Train this model and work with its :meth:`export`, whose layers are torch's own and lower to the
    fused ops; σ behind a projection is evaluated as a module.

    Args:
        event_shape: shape of one input.
        a: constant of the decoder in pixel scale, its sigmoid included; the published networks of
            constant L have L before the sigmoids, which is a = c = L/4 here.
        b: constant of the mean.
        c: constant of σ, its sigmoid included; None with ``fixed_std``.
        hidden: widths of the encoders' hidden layers, even; the decoder has them in reverse order.
        latent: number of latents d.
        std_norm: radius of the ball of σ; None for no ball.
        fixed_std: None, or σ > 0 independent of x, the same for all latents.
        order: of Björck's iteration, 1 to 3; 1 and 3 never exceed 1.
        iterations: of it in every forward pass.
        export_iterations: of it in :meth:`export` and :meth:`project_`.
        likelihood, obs_std: as for :class:`VAE`.
        seed: of the initial weights, orthonormal with uniform biases.

    Raises:
        TypeError: a size is not a whole number, or a constant no number.
        ValueError: a size below 1, an odd width, a constant that is not positive and finite, both
            ``fixed_std`` and what shapes a learned σ, or an unknown name.

    Source: Barrett, Camuto, Willetts, Rainforth, "Certifiably robust variational autoencoders",
    AISTATS 2022; mathematics.md 4.5.
    """

    convolutional = False

    def __init__(
        self,
        event_shape: Sequence[int],
        a: float | None = None,
        b: float | None = None,
        c: float | None = None,
        hidden: Sequence[int] = (512, 512),
        latent: int = 10,
        *,
        std_norm: float | None = None,
        fixed_std: float | None = None,
        order: int = 1,
        iterations: int = 3,
        export_iterations: int = 50,
        likelihood: str = "continuous_bernoulli",
        obs_std: float = 1.0,
        seed: int = 0,
    ) -> None:
        event = check_event_shape(event_shape)
        hidden, latent = _check_widths(hidden), checks.count(latent, "latent")
        given = {"a": a, "b": b, "c": c, "std_norm": std_norm, "fixed_std": fixed_std}
        given = {name: v if v is None else _positive(v, name) for name, v in given.items()}
        if fixed_std is not None and not (c is None and std_norm is None):
            raise ValueError("fixed_std has no constant and no ball; leave out c and std_norm")
        how = _check_order(order), checks.count(iterations, "iterations")
        scale: nn.Module | Tensor
        if given["fixed_std"] is None:
            ball = [] if std_norm is None else [BallOfStd(std_norm)]
            layers = self._up(event, hidden, latent, how)
            scale = nn.Sequential(*layers, nn.Sigmoid(), *ball, LogVariance())
        else:
            logvar = 2.0 * math.log(given["fixed_std"])
            scale = torch.full((latent,), logvar, device="cpu", dtype=torch.get_default_dtype())
        super().__init__(
            encoder_mean=nn.Sequential(*self._up(event, hidden, latent, how)),
            encoder_logvar=scale,
            decoder=nn.Sequential(*self._down(event, hidden, latent, how)),
            likelihood=likelihood,
            obs_std=obs_std,
            decoder_output="mean" if likelihood == "gaussian" else "logits",
            event_shape=event,
        )
        self.hidden, self.latent_dim = hidden, latent
        self.order, self.iterations = order, iterations
        self.export_iterations = checks.count(export_iterations, "export_iterations")
        chosen = {name: given[name] for name in Constants._fields if given[name] is not None}
        mine = ("a", "b") if fixed_std else Constants._fields
        self.free = tuple(name for name in mine if name not in chosen)
        self._set = Constants(DEFAULT, DEFAULT, 0.0 if fixed_std else DEFAULT)
        self._initialise(seed)
        self.set_constants(**chosen)

    @property
    def constants(self) -> Constants:
        """As they were set; what the weights keep to is computed from them.

        Of a fixed σ ``std_norm`` is ‖σ‖₂.
        """
        logvar = self.encoder.logvar
        if not isinstance(logvar, Tensor):
            return self._set
        norm = torch.linalg.vector_norm(torch.exp(0.5 * logvar.detach().double()))
        return self._set._replace(std_norm=float(norm))

    @torch.no_grad()
    def set_constants(
        self,
        a: float | None = None,
        b: float | None = None,
        c: float | None = None,
        std_norm: float | None = None,
    ) -> None:
        """Other constants, in place; None leaves one as it is.

        Args:
            std_norm: radius of the ball of σ, or ‖σ‖₂ of a fixed σ.

        Raises:
            ValueError: a constant that is not positive and finite, or c of a fixed σ.
        """
        given = {"a": a, "b": b, "c": c, "std_norm": std_norm}
        new = {name: _positive(v, name) for name, v in given.items() if v is not None}
        if c is not None and self.fixed_std:
            raise ValueError("c must be left out where σ is fixed")
        if std_norm is not None:
            self._set_width(new.pop("std_norm"))
        self._set = self._set._replace(**new)
        slack = 1.0 if self.likelihood == "gaussian" else SIGMOID
        set_constant(self.decoder, self._set.a / slack)
        set_constant(cast(nn.Module, self.encoder.mean), self._set.b)
        if not self.fixed_std:
            set_constant(cast(nn.Module, self.encoder.logvar), self._set.c / SIGMOID)

    def _set_width(self, norm: float) -> None:
        logvar = self.encoder.logvar
        if isinstance(logvar, Tensor):
            logvar.fill_(2.0 * math.log(norm / math.sqrt(len(logvar))))
            return
        assert isinstance(logvar, nn.Sequential)
        self._set = self._set._replace(std_norm=norm)
        if isinstance(ball := logvar[-2], BallOfStd):
            ball.radius.fill_(norm)
        else:
            like = next(self.parameters())
            logvar.insert(len(logvar) - 1, BallOfStd(norm).to(like.device, like.dtype))

    @without_autocast
    @torch.no_grad()
    def project_(self) -> LipschitzVAE:
        """Orthonormalise the weights themselves, by ``export_iterations``; returns the model.

        No singular value is above 1 then, by a computed bound, and the constants hold as they were
        set, up to the rounding of the layers' own iterations.
        """
        for layer in layers_of(self):
            enforce_constant(layer, self.export_iterations)
        return self

    @without_autocast
    @torch.no_grad()
    def export(self) -> ExportedLipschitzVAE:
        """The same maps made of torch's layers, detached, in eval mode, within the constants.

        Weights are orthonormalised by ``export_iterations`` in float64, scaled, rounded to the
        model's dtype, and made smaller where a computed bound of their spectral norm exceeds the
        layer's constant. σ keeps its projection. ``models.save`` takes the result.

        Raises:
            ValueError: weights that are not finite.
        """
        scale, often = self.encoder.logvar, self.export_iterations
        parts = VAE(
            encoder_mean=as_torch_layers(cast(nn.Module, self.encoder.mean), often),
            encoder_logvar=scale if isinstance(scale, Tensor) else as_torch_layers(scale, often),
            decoder=as_torch_layers(self.decoder, often),
            likelihood=self.likelihood,
            obs_std=self.obs_std,
            decoder_output=self.decoder_output,
        )
        kept = {name: value.clone() for name, value in parts.state_dict().items()}
        with torch.device("meta"):
            vae = ExportedLipschitzVAE(
                self.event_shape or (),
                self.hidden,
                cast(int, self.latent_dim),
                ball=not self.fixed_std and math.isfinite(self.constants.std_norm),
                fixed_std=self.fixed_std,
                convolutional=self.convolutional,
                likelihood=self.likelihood,
                obs_std=self.obs_std,
            )
        vae.load_state_dict(kept, assign=True)
        return vae.eval()

    def config(self) -> dict[str, Any]:
        """The constructor's arguments that make a model of this one's shape and constants."""
        kept, logvar = self.constants, self.encoder.logvar
        fixed = float(torch.exp(0.5 * logvar[0])) if isinstance(logvar, Tensor) else None
        return {
            "event_shape": list(self.event_shape or ()),
            "a": kept.a,
            "b": kept.b,
            "c": None if self.fixed_std else kept.c,
            "hidden": list(self.hidden),
            "latent": self.latent_dim,
            "std_norm": None if fixed or math.isinf(kept.std_norm) else kept.std_norm,
            "fixed_std": fixed,
            "order": self.order,
            "iterations": self.iterations,
            "export_iterations": self.export_iterations,
            "likelihood": self.likelihood,
            "obs_std": self.obs_std,
        }

    @staticmethod
    def _up(
        event: Sequence[int], hidden: Sequence[int], latent: int, how: tuple[int, int]
    ) -> list[nn.Module]:
        """Layers of an encoder, x [n, *event] to [n, latent]."""
        return [nn.Flatten(), *network((math.prod(event), *hidden, latent), *how)]

    @staticmethod
    def _down(
        event: Sequence[int], hidden: Sequence[int], latent: int, how: tuple[int, int]
    ) -> list[nn.Module]:
        """Layers of the decoder, z [n, latent] to [n, *event]."""
        layers = network((latent, *reversed(hidden), math.prod(event)), *how)
        return [*layers, nn.Unflatten(1, tuple(event))]

    def _initialise(self, seed: int) -> None:
        device = default_device()
        if device.type == "meta":
            return
        generator = torch.Generator(device="cpu").manual_seed(seed)
        for layer in layers_of(self):
            if isinstance(layer, BjorckLinear):
                initialise(layer, generator)
        self.to(device)


def _check_widths(hidden: Sequence[int]) -> tuple[int, ...]:
    sizes = check_sizes(hidden, "hidden")
    if odd := [width for width in sizes if width % 2]:
        raise ValueError(f"hidden must be even widths, which MaxMin pairs, got {odd[0]}")
    return sizes


def _check_order(order: int) -> int:
    if checks.count(order, "order") > 3:
        raise ValueError(f"order must be 1, 2 or 3, got {order}")
    return order


def _positive(value: float, name: str) -> float:
    if not 0.0 < checks.number(value, name) < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value:g}")
    return float(value)
