# SPDX-License-Identifier: MIT
"""The laws of csrc/, read from its files.

    binding -> models, train -> nn -> graph -> ops -> kernels -> base

An arrow may skip forward, never turn back; include/ is public and depends on nothing.
"""

import re
from collections import Counter
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[1] / "csrc"
RANK = {
    "binding": 7,
    "models": 6,
    "train": 6,
    "nn": 5,
    "graph": 4,
    "ops": 3,
    "kernels": 2,
    "base": 1,
    "include": 0,
}
SUFFIXES = {".c", ".h", ".def", ".inc"}
LONGEST = 800

COMMENT_OR_STRING = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL
)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)
FORBIDDEN_CALLS = re.compile(
    r"\b(malloc|calloc|realloc|reallocarray|aligned_alloc|posix_memalign|memalign|valloc|strdup|"
    r"strndup|free|abort|exit|_exit|_Exit|quick_exit|printf|fprintf|vprintf|vfprintf|dprintf|puts|"
    r"fputs|putchar|perror)\s*\("
)
INTRINSIC = re.compile(r"\b_mm(?:256|512)?_\w+|\b__m(?:64|128|256|512)[id]?\b")
INTRINSIC_HEADER = re.compile(r"^(?:[a-z]mmintrin|immintrin|x86intrin|\w*intrin|arm_neon)\.h$")
OPENMP = re.compile(r"#[ \t]*pragma[ \t]+omp\b|\bomp_[a-z]\w*")


def plain(text):
    """The code without comments and strings, line numbers kept; includes survive."""
    kept = {m.start(): m.end() for m in INCLUDE.finditer(text)}

    def blank(match):
        if any(a <= match.start() < b for a, b in kept.items()):
            return match.group()
        return re.sub(r"[^\n]", " ", match.group())

    return COMMENT_OR_STRING.sub(blank, text)


def sources(root):
    return [p for p in sorted(root.rglob("*")) if p.suffix in SUFFIXES and p.is_file()]


def folder_of(path, root):
    parts = path.relative_to(root).parts
    return parts[0] if len(parts) > 1 else ""


def violations(root):
    """Every broken law as 'file:line: what', for the tree at ``root``."""
    found = []
    files = sources(root)
    by_name = {}
    for p in files:
        by_name.setdefault(p.name, p)
    for p in files:
        mine = folder_of(p, root)
        where = p.relative_to(root)
        text = p.read_text(encoding="utf-8")
        code = plain(text)

        def say(position, what, where=where, code=code):
            found.append(f"{where}:{code.count(chr(10), 0, position) + 1}: {what}")

        if mine not in RANK and mine != "examples":
            found.append(f"{where}: a folder that the map does not know")
            continue
        for m in INCLUDE.finditer(code):
            name = m.group(2)
            base = name.rsplit("/", 1)[-1]
            target = root / name if (root / name).is_file() else p.parent / name
            if not target.is_file():
                target = by_name.get(base)
            if base == "Python.h" or name.startswith("numpy/"):
                if mine != "binding":
                    say(m.start(), f"includes {name}")
            elif target is not None:
                theirs = folder_of(target.resolve(), root.resolve())
                if mine == "examples" and theirs not in ("examples", "include"):
                    say(m.start(), f"an example includes {name}, which is not public")
                elif mine != "examples" and theirs == "examples":
                    say(m.start(), f"{mine} -> examples ({name})")
                elif mine in RANK and theirs in RANK and mine != theirs:
                    if RANK[theirs] >= RANK[mine]:
                        say(m.start(), f"{mine} -> {theirs} ({name})")
            elif m.group(1) == '"':
                say(m.start(), f"includes {name}, which is not in the tree")
            simd_file = re.search(r"_(?:avx2|avx512)\.c$", p.name) or (
                mine == "base" and re.match(r"simd_\w+\.h$", p.name)
            )
            if INTRINSIC_HEADER.match(base) and not simd_file:
                say(m.start(), f"includes {name} outside *_<isa>.c and base/simd_*.h")
            if base == "omp.h" and where.as_posix() != "base/threads.c":
                say(m.start(), "includes omp.h outside base/threads.c")
        if mine not in ("base", "examples"):
            for m in FORBIDDEN_CALLS.finditer(code):
                say(m.start(), f"calls {m.group(1)} outside base/")
        if not (
            re.search(r"_(?:avx2|avx512)\.c$", p.name)
            or (mine == "base" and re.match(r"simd_\w+\.h$", p.name))
        ):
            for m in INTRINSIC.finditer(code):
                say(m.start(), f"{m.group()} outside *_<isa>.c and base/simd_*.h")
        if where.as_posix() != "base/threads.c":
            for m in OPENMP.finditer(code):
                say(m.start(), f"{m.group()} outside base/threads.c")
        for m in re.finditer(r"^[ \t]*#[ \t]*if[ \t]+0\b", code, re.MULTILINE):
            say(m.start(), "#if 0")
        lines = text.count("\n")
        if lines > LONGEST:
            found.append(f"{where}: {lines} lines, at most {LONGEST}")
    for name, count in Counter(p.name for p in files).items():
        if count > 1:
            found.append(f"{name}: {count} files of this name")
    return found


def test_the_laws_of_csrc():
    if not CSRC.is_dir():
        pytest.skip("the sources are not here")
    assert {"base", "kernels", "ops", "graph", "nn", "models", "train", "binding", "include"} <= {
        p.name for p in CSRC.iterdir() if p.is_dir()
    }
    assert len(sources(CSRC)) > 20
    broken = violations(CSRC)
    assert not broken, "\n" + "\n".join(broken)


GOOD = {
    "include/lucid_c.h": "int lc_version(void);\n",
    "base/mem.h": "#include <stddef.h>\nvoid *lc_alloc(size_t n);\n",
    "base/mem.c": '#include <stdlib.h>\n#include "base/mem.h"\n'
    "void *lc_alloc(size_t n) { return malloc(n); }\n",
    "base/simd_avx2.h": "#include <immintrin.h>\n#define V _mm256_setzero_ps()\n",
    "base/threads.c": "#include <omp.h>\nvoid f(void) {\n#pragma omp parallel\n{}\n}\n",
    "kernels/conv_avx2.c": '#include "base/simd_avx2.h"\n__m256 v;\n',
    "ops/conv.c": '#include "base/mem.h" /* printf( abort( */\n// malloc(\n'
    'const char *s = "exit(1) _mm256_add_ps omp_get_num_threads";\n'
    "void lc_free(void *p); void g(void) { lc_free(0); }\n",
    "graph/graph.c": '#include "ops/conv.h"\n',
    "ops/conv.h": "",
    "nn/layer.h": "",
    "binding/module.c": '#include <Python.h>\n#include "nn/layer.h"\n#include "lucid_c.h"\n',
    "examples/classify.c": '#include <stdio.h>\n#include "lucid_c.h"\n'
    'int main(void) { printf("x"); }\n',
}


def grow(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_lawful_tree_passes(tmp_path):
    assert violations(grow(tmp_path, GOOD)) == []


@pytest.mark.parametrize(
    "name,text,what",
    [
        ("base/a.h", '#include "ops/conv.h"\n', "base -> ops"),
        ("kernels/a.h", '#include "../ops/conv.h"\n', "kernels -> ops"),
        ("ops/a.c", '#include "layer.h"\n', "ops -> nn"),
        ("models/a.c", '#include "train/t.h"\n', "models -> train"),
        ("include/a.h", '#include "base/mem.h"\n', "include -> base"),
        ("nn/a.c", "#include <Python.h>\n", "includes Python.h"),
        ("nn/a.c", '#include "gone.h"\n', "not in the tree"),
        ("graph/a.c", "void f(void) { char *p = malloc (3); }\n", "calls malloc"),
        ("graph/a.c", "void f(void) {\n    abort();\n}\n", "graph/a.c:2: calls abort"),
        ("binding/a.c", "void f(void) { exit(1); }\n", "calls exit"),
        ("nn/a.c", "void f(void) { printf(0); }\n", "calls printf"),
        ("kernels/a.c", "void f(void) {\n#pragma omp parallel for\n}\n", "#pragma omp"),
        ("kernels/a.c", "#include <omp.h>\n", "omp.h"),
        ("graph/a.c", "int f(void) { return omp_get_max_threads(); }\n", "omp_get_max_threads"),
        ("kernels/a.c", "#include <immintrin.h>\n", "immintrin.h"),
        ("kernels/a_scalar.c", "void f(void) { _mm_pause(); }\n", "_mm_pause"),
        ("ops/a.h", "__m512 x;\n", "__m512"),
        ("ops/mem.c", "\n", "mem.c: 2 files"),
        ("ops/long.c", "int x;\n" * 801, "801 lines"),
        ("ops/a.c", "#if 0\n#endif\n", "#if 0"),
        ("utils/a.c", "\n", "does not know"),
        ("examples/a.c", '#include "base/mem.h"\n', "not public"),
    ],
)
def test_each_law_is_enforced(tmp_path, name, text, what):
    broken = violations(grow(tmp_path, {**GOOD, "train/t.h": "", name: text}))
    assert len(broken) == 1 and what in broken[0], broken
