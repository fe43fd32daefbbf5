"""The ops: public functions with checks, registration and the choice of backend."""

from vaefast.backends import supports
from vaefast.ops.decode_distance import decode_distance
from vaefast.ops.leapfrog_step import leapfrog_step
from vaefast.ops.log_likelihood import log_likelihood
from vaefast.ops.mlp_chain import mlp_chain
from vaefast.ops.mlp_forward import mlp_forward
from vaefast.ops.mlp_jacobian_gram import mlp_jacobian_gram
from vaefast.ops.mlp_jvp import mlp_jvp
from vaefast.ops.mlp_potential import mlp_potential
from vaefast.ops.mlp_trajectory import mlp_trajectory
from vaefast.ops.mlp_vjp import mlp_vjp
from vaefast.ops.pgd_step import pgd_step

__all__ = [
    "decode_distance",
    "leapfrog_step",
    "log_likelihood",
    "mlp_chain",
    "mlp_forward",
    "mlp_jacobian_gram",
    "mlp_jvp",
    "mlp_potential",
    "mlp_trajectory",
    "mlp_vjp",
    "pgd_step",
    "supports",
]
