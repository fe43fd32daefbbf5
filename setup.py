"""Build ``vaefast._C``: one binding, and the kernels once per instruction-set level.

The extension knows neither torch nor its ABI, so one build serves every torch version.
``VAEFAST_STRICT_BUILD=1`` turns a failed build into an error; otherwise the package installs
without its C++ backend and ``vaefast.info()`` says so. ``VAEFAST_SANITIZE=1`` builds with
AddressSanitizer and UndefinedBehaviorSanitizer, for ``make sanitize``.
"""

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pybind11 import get_include
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CXX_FLAGS = ["-std=c++17", "-O3", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra"]
CXX_FLAGS += ["-Wno-maybe-uninitialized"]  # GCC 12 raises it inside its own AVX-512 headers
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
X86_V3 = ["-mavx", "-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2", "-mlzcnt", "-mmovbe"]
X86_V4 = [*X86_V3, "-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl"]


def levels():
    """Name and compiler flags of every instruction-set level this platform can carry."""
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        return {"plain": [], "x86_64_v3": X86_V3, "x86_64_v4": X86_V4}
    if machine in ("aarch64", "arm64"):
        return {"plain": [], "neon": []}
    return {"plain": []}


class BuildExtension(build_ext):
    """Compile ``csrc/level.cpp`` once per level, all at once, and link them into the one module."""

    def build_extension(self, ext):
        macros = [(f"VAEFAST_HAS_{name.upper()}", "1") for name in levels()]
        with ThreadPoolExecutor() as pool:
            for objects in pool.map(lambda level: self._compile(ext, *level), levels().items()):
                ext.extra_objects += objects
        ext.define_macros += macros
        super().build_extension(ext)

    def _compile(self, ext, name, flags):
        return self.compiler.compile(
            ["csrc/level.cpp"],
            output_dir=str(Path(self.build_temp) / name),
            include_dirs=ext.include_dirs,
            macros=[("VAEFAST_LEVEL", name)],
            extra_postargs=[*ext.extra_compile_args, *flags],
            depends=ext.depends,
        )


strict = os.environ.get("VAEFAST_STRICT_BUILD") == "1"
openmp = [] if platform.system() == "Darwin" else ["-fopenmp"]
sanitize = SANITIZE if os.environ.get("VAEFAST_SANITIZE") == "1" else []
debug = [*sanitize, "-O1", "-g", "-fno-omit-frame-pointer"] if sanitize else []
extension = Extension(
    "vaefast._C",
    sources=["csrc/bind/bind.cpp"],
    depends=[str(path) for path in sorted(Path("csrc").rglob("*.*"))],
    include_dirs=["csrc", get_include()],
    extra_compile_args=[*CXX_FLAGS, *openmp, *debug],
    extra_link_args=[*openmp, *sanitize],
    language="c++",
    optional=not strict,
)
setup(ext_modules=[extension], cmdclass={"build_ext": BuildExtension})
