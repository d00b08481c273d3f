# SPDX-License-Identifier: MIT
"""The build: flags per file, what is compiled again, what the sdist and the module hold."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytest.importorskip("setuptools")
ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "setup.py").exists():
    pytest.skip("no checkout around the tests", allow_module_level=True)

spec = importlib.util.spec_from_file_location("lucid_c_setup", ROOT / "setup.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

SOURCES = ["csrc/base/threads.c", "csrc/ops/conv.c", "csrc/kernels/k_avx2.c"]
SOURCES += ["csrc/kernels/k_avx512.c", "csrc/kernels/k_scalar.c"]
OPENMP = build.OPENMP_FLAGS[0]


class Recorder:
    """Takes the place of the Toolchain: keeps the flags of every file that it should compile."""

    def __init__(self):
        self.flags = {}

    def compile(self, source, obj, flags):
        self.flags[source] = flags


def flags_per_file(isa_flags, openmp):
    recorder = Recorder()
    objects = build.compile_all(recorder, SOURCES, "build", isa_flags, openmp)
    assert objects == [f"build/{s[:-2]}.o" for s in SOURCES if s in recorder.flags]
    return recorder.flags


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_only_files_of_an_isa_get_its_flags(isa):
    for source, flags in flags_per_file(build.ISA_FLAGS, OPENMP).items():
        machine = [flag for flag in flags if flag.startswith("-m")]
        if source.endswith(f"_{isa}.c"):
            assert machine == build.ISA_FLAGS[isa]
        elif not build.isa_of(source):
            assert machine == []
        assert ("-fopenmp" in flags) == (source == "csrc/base/threads.c")
        assert not {"-ffast-math", "-Ofast", "-march=native"} & set(flags)
        assert not [flag for flag in flags if flag.startswith("-DLC_NO_")]


def test_what_the_compiler_lacks_is_left_out_and_said():
    found = flags_per_file({"avx2": build.ISA_FLAGS["avx2"]}, None)
    assert list(found) == [s for s in SOURCES if "avx512" not in s]
    for flags in found.values():
        said = {flag for flag in flags if flag.startswith("-DLC_NO_")}
        assert said == {"-DLC_NO_AVX512", "-DLC_NO_OPENMP"}
        assert "-fopenmp" not in flags


def test_sources_are_all_but_the_examples(tmp_path):
    for name in ["ops/b.c", "base/a.c", "examples/e.c", "binding/m.c", "base/a.h"]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = build.find_sources(tmp_path)
    assert [Path(s).relative_to(tmp_path).as_posix() for s in found] == [
        "base/a.c",
        "binding/m.c",
        "ops/b.c",
    ]


def test_makefile_and_setup_agree_on_flags():
    text = (ROOT / "csrc" / "Makefile").read_text()
    assert f"CFLAGS_CORE := {' '.join(build.CFLAGS)}\n" in text
    for isa, flags in build.ISA_FLAGS.items():
        assert f"FLAGS_{isa} := {' '.join(flags)}\n" in text


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A project of two files, one of which includes a header; `toy.run()` says what it compiled."""
    cc = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if cc is None:
        pytest.skip("no C compiler")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LUCID_C_WERROR", raising=False)
    Path("one.h").write_text("int one(void);\n")
    Path("one.c").write_text('#include "one.h"\nint one(void) { return 1; }\n')
    Path("two.c").write_text("int two(void) { return 2; }\n")

    class Toy:
        folder = tmp_path

        def run(self):
            lines = []
            tools = build.Toolchain([cc], ["-I."], log=lines.append)
            self.objects = build.compile_all(tools, ["one.c", "two.c"], "build", {}, None)
            return sorted(line.removeprefix("compiling ") for line in lines)

    return Toy()


def test_only_what_changed_is_compiled_again(toy, monkeypatch):
    assert toy.run() == ["one.c", "two.c"]
    assert toy.run() == []

    built = os.stat(toy.objects[0]).st_mtime_ns  # same age counts as newer
    os.utime("one.h", ns=(built, built))
    assert toy.run() == ["one.c"]
    built = os.stat(toy.objects[1]).st_mtime_ns
    os.utime("two.c", ns=(built, built))
    assert toy.run() == ["two.c"]
    os.remove(toy.objects[1])
    assert toy.run() == ["two.c"]

    monkeypatch.setenv("LUCID_C_WERROR", "1")  # other flags
    assert toy.run() == ["one.c", "two.c"]
    assert toy.run() == []


def test_a_compile_error_names_the_file_and_is_not_taken_for_done(toy):
    Path("two.c").write_text("int two(void) { return nonsense; }\n")
    for _ in range(2):
        with pytest.raises(build.CompileError, match=r"two\.c[\s\S]*nonsense"):
            toy.run()


def files_below(root, *folders):
    skipped = {".so", ".a", ".o", ".d", ".pyc", ".pyo", ".pyd"}
    return {
        path.relative_to(root).as_posix()
        for folder in folders
        for path in (root / folder).rglob("*")
        if path.is_file() and path.suffix not in skipped
    }


def test_sdist_has_all_that_a_build_and_the_tests_need(tmp_path):
    copy = tmp_path / "copy"
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=unwanted)
    code = "from setuptools import build_meta; print(build_meta.build_sdist('.'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    with tarfile.open(copy / done.stdout.split()[-1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = files_below(copy, "csrc", "lucid_c", "tests", "benchmarks", "examples")
    assert wanted | {"setup.py", "pyproject.toml", "LICENSE", "README.md"} <= names
    assert not [name for name in names if name.endswith((".so", ".o", ".a", ".pyc"))]


def test_installed_module_is_one_small_stripped_abi3_file():
    core = Path(pytest.importorskip("lucid_c._core").__file__)
    if build.ABI3 and os.name == "posix":
        assert core.name == "_core.abi3.so"
    assert core.stat().st_size < 5_000_000
    if sys.platform.startswith("linux"):
        assert b".debug_info" not in core.read_bytes()


@pytest.mark.skipif(not shutil.which("nm"), reason="needs nm")
def test_installed_module_exports_only_its_own_names():
    core = pytest.importorskip("lucid_c._core").__file__
    table = subprocess.run(["nm", "-D", "--defined-only", core], capture_output=True, text=True)
    names = {line.split()[-1].lstrip("_") for line in table.stdout.splitlines()}
    assert "PyInit__core" in names
    assert not [name for name in names if not name.startswith(("PyInit__core", "lc_"))]
