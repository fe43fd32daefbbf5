"""The ops: public functions with checks, registration and the choice of backend."""

from vaefast.ops.decode_distance import decode_distance
from vaefast.ops.leapfrog_step import leapfrog_step
from vaefast.ops.log_likelihood import log_likelihood
from vaefast.ops.net_chain import net_chain
from vaefast.ops.net_forward import net_forward
from vaefast.ops.net_jacobian_gram import net_jacobian_gram
from vaefast.ops.net_jvp import net_jvp
from vaefast.ops.net_potential import net_potential
from vaefast.ops.net_trajectory import net_trajectory
from vaefast.ops.net_vjp import net_vjp
from vaefast.ops.pgd_step import pgd_step
from vaefast.runtime.backends import supports
from vaefast.runtime.environment import info as info  # of the ops declared here

__all__ = [
    "decode_distance",
    "leapfrog_step",
    "log_likelihood",
    "net_chain",
    "net_forward",
    "net_jacobian_gram",
    "net_jvp",
    "net_potential",
    "net_trajectory",
    "net_vjp",
    "pgd_step",
    "supports",
]
