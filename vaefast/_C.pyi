# The C++ extension: addresses and sizes only; vaefast.ops checks what it passes.
from collections.abc import Sequence

openmp: int

_Rows = tuple[int, int]  # address and row stride in elements
_Layers = tuple[Sequence[tuple], int, int]  # vaefast.ops._cpp.layers_of
_Matrix = tuple[int, int, int]  # address, row stride, column stride 0 or 1
_Likelihood = tuple[_Rows, int, int, _Matrix]  # vaefast.ops._cpp.like_of

def net_pack_bytes_f32(layers: Sequence[tuple], /) -> int: ...
def net_pack_start_f32(layers: Sequence[tuple], pack: int, /) -> None: ...
def net_pack_f32(
    net: _Layers,
    directions: int,  # 1: forward, 2: backward; sum of both
    threads: int,
    /,
) -> bool: ...  # whether it lacked any
def tape_width_f32(net: _Layers, /) -> int: ...
def net_forward_f32(
    out: _Rows,
    tape: _Rows,  # address 0 where the slopes are not kept
    z: _Rows,
    N: int,
    net: _Layers,
    threads: int,
    /,
) -> None: ...
def net_potential_f32(
    U: int,  # address of [N] float64
    grad: _Rows,
    z: _Rows,
    N: int,
    net: _Layers,
    like: _Likelihood,
    threads: int,
    /,
) -> None: ...
def net_trajectory_f32(
    end: Sequence[_Rows],  # z, p, grad
    U: int,  # address of [N] float64
    start: Sequence[_Rows],  # z, p, grad
    step: int,  # address of [N]
    inv_mass: _Rows,  # zeros for unit mass
    root: Sequence[int],  # addresses of S by rows and by columns [B, d, d], zeros for a diagonal
    N: int,
    leapfrog: int,
    net: _Layers,
    like: _Likelihood,
    threads: int,
    /,
) -> None: ...
def net_trajectory_vjp_f32(
    into: Sequence[_Rows],  # z, p, x, and of each row its share of x
    given: Sequence[_Rows],  # z, p, upstream, upstream_p (zeros for none)
    rows: Sequence[int],  # addresses of accepted (0 for all) and of step, [N]
    inv_mass: _Rows,  # zeros for unit mass
    N: int,
    leapfrog: int,
    net: _Layers,
    like: _Likelihood,
    threads: int,
    /,
) -> None: ...
def net_chain_f32(
    state: Sequence[_Rows],  # z, grad: start and end
    results: Sequence[int],  # addresses of U, accepted, divergent, draws, energies
    rows: Sequence[int],  # addresses of step and of index, [B]
    inv_mass: _Rows,  # zeros for unit mass
    root: Sequence[int],  # addresses of S by rows and by columns [B, d, d], zeros for a diagonal
    counts: Sequence[int],  # N, leapfrog, first_step, steps, thin, kept
    jitter: float,
    seed: int,  # modulo 2**64
    net: _Layers,
    like: _Likelihood,
    threads: int,
    /,
) -> None: ...
def isa() -> str: ...
def isa_levels() -> list[str]: ...
def pgd_step_f32(
    data: tuple[int, int, int, int],  # addresses of out, x_adv, grad, x
    strides: tuple[int, int, int, int],  # of their rows, in elements
    B: int,
    D: int,
    scalars: Sequence[float],  # alpha, eps, low, high
    given: Sequence[_Matrix],  # the same for rows or elements; empty where they are scalars
    l2: bool,
    clip_first: bool,
    norm_eps: float,
    threads: int,
    /,
) -> None: ...
def leapfrog_step_f32(
    data: Sequence[int],  # addresses of z, p, grad, inv_mass (or 0)
    strides: Sequence[int],  # of their rows, in elements
    step: int,  # address of [N]
    N: int,
    d: int,
    chains: int,
    kick: float,
    drift: bool,
    threads: int,
    /,
) -> None: ...
def log_likelihood_f32(
    data: Sequence[int],  # addresses of out, x, logp (float64), score
    strides: Sequence[int],  # of the rows of out, x, score, in elements
    N: int,
    D: int,
    chains: int,
    likelihood: int,  # its place in vaefast.types.LIKELIHOODS
    std: _Matrix,
    threads: int,
    /,
) -> None: ...
def net_jvp_f32(
    results: tuple[_Rows, _Rows],  # y, products (address 0 for none)
    sq: int,  # address of [B, K] float64
    given: tuple[_Rows, _Rows, _Rows],  # x, probes [K, ·] or [B·K, ·], zeros
    shared: bool,  # whether the probes are [K, ·]
    counts: tuple[int, int],  # B, K
    net: _Layers,
    threads: int,
    /,
) -> None: ...
def net_vjp_f32(
    results: tuple[_Rows, _Rows],
    sq: int,
    given: tuple[_Rows, _Rows, _Rows],  # x, probes, net_forward's tape (address 0 for none)
    shared: bool,
    counts: tuple[int, int],
    net: _Layers,
    threads: int,
    /,
) -> None: ...
def net_jacobian_gram_f32(
    out: int,  # address of [B, d, d]
    x: _Rows,
    inv_std: _Rows,  # address 0 for ones
    B: int,
    net: _Layers,
    threads: int,
    /,
) -> None: ...
def decode_distance_f32(
    hits: int,  # address of [B] int64 zeros
    data: Sequence[tuple[int, int]],  # mean, std, centre: address and row stride in elements
    rows: Sequence[int],  # addresses of r and of index, [B]
    counts: tuple[int, int, int],  # B, first_sample, samples
    seed: int,  # modulo 2**64
    net: _Layers,
    threads: int,
    /,
) -> None: ...
def philox_integers(
    seed: int,  # modulo 2**64
    index: int,  # address of [rows] int64
    rows: int,
    step: int,
    lane: int,
    use: int,
    first: int,  # the first element
    count: int,
    out: int,  # address of [rows, count] uint32
    /,
) -> None: ...
def philox_uniform(
    seed: int, index: int, step: int, lane: int, use: int, element: int, /
) -> float: ...
def philox_normal_f32(
    seed: int,
    index: int,
    rows: int,
    step: int,
    lane: int,
    use: int,
    count: int,
    out: int,  # address of [rows, count] float32
    /,
) -> None: ...
def activate_f32(
    kind: int, p1: float, p2: float, a: int, h: int, slope: int, count: int, /
) -> None: ...
def multiply_slope_f32(kind: int, slope: int, t: int, count: int, /) -> None: ...
def evaluate_f32(function: int, values: int, out: int, count: int, /) -> None: ...

# the same in float64
net_pack_bytes_f64 = net_pack_bytes_f32
net_pack_start_f64 = net_pack_start_f32
tape_width_f64 = tape_width_f32
net_pack_f64 = net_pack_f32
net_forward_f64 = net_forward_f32
net_potential_f64 = net_potential_f32
net_trajectory_f64 = net_trajectory_f32
net_trajectory_vjp_f64 = net_trajectory_vjp_f32
net_chain_f64 = net_chain_f32
pgd_step_f64 = pgd_step_f32
leapfrog_step_f64 = leapfrog_step_f32
log_likelihood_f64 = log_likelihood_f32
net_jvp_f64 = net_jvp_f32
net_vjp_f64 = net_vjp_f32
net_jacobian_gram_f64 = net_jacobian_gram_f32
decode_distance_f64 = decode_distance_f32
philox_normal_f64 = philox_normal_f32
activate_f64 = activate_f32
multiply_slope_f64 = multiply_slope_f32
evaluate_f64 = evaluate_f32

def displacement_centres_f64(
    results: tuple[_Rows, _Rows],  # pre-activations of all layers, rounding of the first's
    x: _Rows,
    B: int,
    net: _Layers,
    threads: int,
    /,
) -> None: ...
def net_displacement_bound_f64(
    results: tuple[int, int, int],  # gram, rest, rounding
    ranges: tuple[_Rows, _Rows],  # low, high; address 0 where they are not wanted
    centres: tuple[_Rows, _Rows],  # displacement_centres' results
    radius: int,
    scale: _Rows,  # address 0 for ones
    counts: tuple[int, int],  # B, groups
    factor: tuple[_Rows, int, bool],  # F, its columns, whether it is a triangle
    norms: tuple[int, int],  # of the first layer's features, of its units
    slack: float,
    curves: Sequence[tuple[float, float, float, float, float, float]],
    net: _Layers,
    threads: int,
    /,
) -> None: ...
