"""The ops: public functions with checks, registration and the choice of backend.

What every op takes:

- ``backend``: ``"reference"``, ``"cpp"`` or ``"triton"``; None chooses the fast one of the device.
  A backend asked for by name runs or raises.
- ``precision``: the minimum precision of matrix products, ``"ieee"``, ``"tf32"`` or ``"bf16"``. A
  backend may compute in a higher one; the reference always computes in the inputs' dtype.
- ``tile``: rows that one GPU program works on, 16, 32, 64 or 128; None chooses it from the batch.
  It pins the bits of a result on CUDA; the CPU has no tiles and ignores it.
"""

from vaefast.ops.decode_distance import decode_distance
from vaefast.ops.eigenvalue_bound import eigenvalue_bound
from vaefast.ops.leapfrog_step import leapfrog_step
from vaefast.ops.log_likelihood import log_likelihood
from vaefast.ops.net_chain import net_chain
from vaefast.ops.net_displacement_bound import net_displacement_bound
from vaefast.ops.net_forward import net_forward
from vaefast.ops.net_jacobian_gram import net_jacobian_gram
from vaefast.ops.net_jvp import net_jvp
from vaefast.ops.net_potential import net_potential
from vaefast.ops.net_trajectory import net_trajectory
from vaefast.ops.net_trajectory_vjp import net_trajectory_vjp
from vaefast.ops.net_vjp import net_vjp
from vaefast.ops.pgd_step import pgd_step
from vaefast.runtime.backends import supports
from vaefast.runtime.environment import info as info  # of the ops declared here

__all__ = [
    "decode_distance",
    "eigenvalue_bound",
    "leapfrog_step",
    "log_likelihood",
    "net_chain",
    "net_displacement_bound",
    "net_forward",
    "net_jacobian_gram",
    "net_jvp",
    "net_potential",
    "net_trajectory",
    "net_trajectory_vjp",
    "net_vjp",
    "pgd_step",
    "supports",
]
