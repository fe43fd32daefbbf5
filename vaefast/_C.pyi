# The C++ extension: addresses and sizes only; vaefast.ops checks what it passes.
PerRow = tuple[int, float]  # address of [B] values or 0, and the value where it is 0

openmp: int

def isa() -> str: ...
def isa_levels() -> list[str]: ...
def pgd_step_f32(
    data: tuple[int, int, int, int],
    strides: tuple[int, int, int, int],
    B: int,
    D: int,
    parameters: tuple[PerRow, PerRow, PerRow, PerRow],
    l2: bool,
    norm_eps: float,
    threads: int,
    /,
) -> None: ...
def pgd_step_f64(
    data: tuple[int, int, int, int],
    strides: tuple[int, int, int, int],
    B: int,
    D: int,
    parameters: tuple[PerRow, PerRow, PerRow, PerRow],
    l2: bool,
    norm_eps: float,
    threads: int,
    /,
) -> None: ...
