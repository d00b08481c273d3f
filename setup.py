"""Builds lucid_c._core from csrc/: every C file in it but the examples, into one extension module.

pyproject.toml has the metadata; this file has what setuptools cannot say there: flags per file,
compilers probed for instruction sets and OpenMP, parallel compilation, dependencies on headers.

Environment: CC and CFLAGS as usual; LUCID_C_WERROR=1 makes warnings errors; LUCID_C_NO_OPENMP=1
builds with the serial thread backend. csrc/Makefile builds the same sources without Python.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext as setuptools_build_ext
from setuptools.errors import CompileError, PlatformError

# No -march=native: the wheel must run elsewhere. No -ffast-math: NaN and the order of sums count,
# and older GCC then links start-up code that flushes denormals in the whole Python process.
CFLAGS = (
    "-std=c11 -O3 -ffp-contract=off -fno-math-errno -fvisibility=hidden -Wall -Wextra -pthread"
).split()

# Only files whose name ends in _<isa>.c get these flags; the CPU is asked at run time.
ISA_FLAGS = {
    "avx2": "-mavx2 -mfma".split(),
    "avx512": (
        "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mprefer-vector-width=512"
    ).split(),
}

ISA_PROBES = {
    "avx2": """
        #include <immintrin.h>
        int main(void) {
            __m256 x = _mm256_set1_ps(1.0f);
            return (int)_mm256_cvtss_f32(_mm256_fmadd_ps(x, x, x));
        }""",
    "avx512": """
        #include <immintrin.h>
        int main(void) {
            __m512 x = _mm512_maskz_and_ps(1, _mm512_set1_ps(1.0f), _mm512_set1_ps(1.0f));
            return (int)_mm512_reduce_add_ps(_mm512_fmadd_ps(x, x, x));
        }""",
}

# (flags for base/threads.c, flags for the linker), tried in this order; the second is Apple clang.
OPENMP_FLAGS = [(["-fopenmp"], ["-fopenmp"]), (["-Xpreprocessor", "-fopenmp"], ["-lomp"])]
OPENMP_PROBE = "#include <omp.h>\nint main(void) { return omp_get_max_threads() == 0; }"

# The limited API gives one wheel for every Python >= 3.11; free-threaded builds do not have it.
ABI3 = not sysconfig.get_config_var("Py_GIL_DISABLED")


def find_sources(root):
    """The C files of the extension below `root`, as sorted paths relative to the project."""
    examples = root / "examples"
    sources = sorted(path for path in root.rglob("*.c") if examples not in path.parents)
    return [path.as_posix() for path in sources]


def isa_of(source):
    """The instruction set that a file name asks for (conv_avx2.c -> "avx2"), or None."""
    suffix = Path(source).stem.rpartition("_")[2]
    return suffix if suffix in ISA_FLAGS else None


class Toolchain:
    """One C compiler: what it can do, and how to compile one file unless that is up to date."""

    def __init__(self, cc, includes=(), macros=(), log=print):
        self.cc = list(cc)
        self.includes = list(includes)
        self.macros = list(macros)
        self.log = log

    def accepts(self, code, flags, link_flags=()):
        """Whether a small program builds with these flags."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text(code)
            command = [*self.cc, *flags, str(source), "-o", str(source.with_suffix(""))]
            return subprocess.run([*command, *link_flags], capture_output=True).returncode == 0

    def openmp_flags(self):
        """(compiler flags, linker flags) for OpenMP; None where it is missing or not wanted."""
        if os.environ.get("LUCID_C_NO_OPENMP") == "1":
            return None
        works = (pair for pair in OPENMP_FLAGS if self.accepts(OPENMP_PROBE, *pair))
        return next(works, None)

    def compile(self, source, obj, flags):
        """Compiles `source` to `obj` if the source, a header of it or the command has changed."""
        # The command is kept without the include folders: pip builds in a new folder every time.
        command = [*self.cc, *flags, *self.macros, "-c", source, "-o", str(obj)]
        stamp, depfile = obj.with_suffix(".cmd"), obj.with_suffix(".d")
        if is_current(obj, stamp, depfile, shlex.join(command)):
            return
        obj.parent.mkdir(parents=True, exist_ok=True)
        stamp.unlink(missing_ok=True)
        self.log(f"compiling {source}")
        done = subprocess.run(
            [*command, *self.includes, "-MMD", "-MF", str(depfile)], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise CompileError(f"cannot compile {source}\n{shlex.join(done.args)}\n{done.stderr}")
        sys.stderr.write(done.stderr)
        stamp.write_text(shlex.join(command))


def is_current(obj, stamp, depfile, command):
    """Whether `obj` was built by `command` after the last change to any file that it depends on."""
    try:
        if stamp.read_text() != command:
            return False
        inputs = shlex.split(depfile.read_text().replace("\\\n", " "))[1:]
        built = obj.stat().st_mtime_ns
        return all(os.stat(path).st_mtime_ns < built for path in inputs)
    except OSError:  # not built yet, or a header is gone
        return False


def compile_all(toolchain, sources, build_dir, isa_flags, openmp, jobs=None):
    """Compiles in parallel and returns the object files. `isa_flags` names the sets that the
    compiler knows; files of the others are left out and LC_NO_<ISA> is defined for the rest."""
    missing = [isa for isa in ISA_FLAGS if isa not in isa_flags]
    common = CFLAGS + [f"-DLC_NO_{isa.upper()}" for isa in missing]
    if openmp is None:
        common.append("-DLC_NO_OPENMP")
    if os.environ.get("LUCID_C_WERROR") == "1":
        common.append("-Werror")
    objects = []
    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        running = []
        for source in sources:
            isa = isa_of(source)
            if isa in missing:
                continue
            flags = common + (isa_flags[isa] if isa else [])
            if openmp and source.endswith("base/threads.c"):
                flags = flags + openmp[0]
            objects.append(Path(build_dir, source).with_suffix(".o"))
            running.append(pool.submit(toolchain.compile, source, objects[-1], flags))
        try:
            for each in running:
                each.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [str(obj) for obj in objects]


class build_ext(setuptools_build_ext):
    def build_extension(self, ext):
        if self.compiler.compiler_type == "msvc":
            raise PlatformError("lucid_c needs GCC or Clang; MSVC does not compile its C11 sources")
        if shutil.which(self.compiler.compiler_so[0]) is None:
            name = self.compiler.compiler_so[0]
            raise PlatformError(f"no C compiler {name!r}: install GCC or Clang, or set CC")
        import numpy

        # -isystem: warnings in the headers of Python and NumPy are not ours.
        system = dict.fromkeys([*self.include_dirs, *ext.include_dirs, numpy.get_include()])
        toolchain = Toolchain(
            self.compiler.compiler_so,
            [f"-I{path}" for path in ("csrc", "csrc/include")]
            + [flag for path in system for flag in ("-isystem", path)],
            [f"-D{name}={value}" for name, value in ext.define_macros] + ["-g0"],
            self.announce_line,
        )
        isa_flags = {
            isa: flags
            for isa, flags in ISA_FLAGS.items()
            if toolchain.accepts(ISA_PROBES[isa], flags)
        }
        openmp = toolchain.openmp_flags()
        self.announce_line(
            f"instruction sets: {' '.join(['scalar', *isa_flags])}; "
            f"threads: {'OpenMP' if openmp else 'serial (no OpenMP found)'}"
        )
        # setuptools only links; always, because the list of objects may have become shorter.
        ext.extra_objects = compile_all(
            toolchain, ext.sources, self.build_temp, isa_flags, openmp, self.parallel
        )
        ext.sources, self.force = [], True
        if openmp:
            ext.extra_link_args = ext.extra_link_args + openmp[1]
        super().build_extension(ext)

    def announce_line(self, text):
        print(text, flush=True)


def core_extension():
    macros = [
        ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
        ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION"),
    ]
    if ABI3:
        macros.append(("Py_LIMITED_API", "0x030B0000"))
    link_args = ["-pthread"]
    if sys.platform.startswith("linux"):
        link_args.append("-Wl,--strip-debug")
    return Extension(
        "lucid_c._core",
        find_sources(Path("csrc")),
        define_macros=macros,
        libraries=["m"],
        extra_link_args=link_args,
        py_limited_api=ABI3,
    )


if __name__ == "__main__":
    setup(
        ext_modules=[core_extension()],
        cmdclass={"build_ext": build_ext},
        options={"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {},
    )
