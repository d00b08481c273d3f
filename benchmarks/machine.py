# SPDX-License-Identifier: MIT
"""What was measured with: processor, caches, versions, settings."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("numpy", "lucid_c", "torch", "onnx", "onnxruntime", "openvino", "matplotlib")
VARIABLES = re.compile(r"^(LUCID_C_|OMP_|MKL_|ONEDNN_|DNNL_|ATEN_|KMP_|GOMP_|LD_PRELOAD|MALLOC_)")


def describe():
    """A dict that JSON can hold. Imports lucid_c and nothing else that is large."""
    import lucid_c

    config = lucid_c.config()
    return {
        "cpu": config["cpu"],
        "isa_flags": isa_flags(),
        "cores": {"logical": config["logical"], "physical": config["physical"]},
        "usable_cores": usable_cores(),
        "caches": {key: config[key] for key in ("l1d", "l2", "l3")},
        "memory_bytes": memory_bytes(),
        "system": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()),
        "load_average": list(os.getloadavg()),
        "versions": {"python": platform.python_version(), **versions(), "lucid_c": ours()},
        "lucid_c": config,
        "environment": {k: v for k, v in sorted(os.environ.items()) if VARIABLES.match(k)},
    }


def ours():
    import lucid_c

    return lucid_c.__version__


def versions():
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def isa_flags():
    """The vector instruction sets that the system reports."""
    flag = re.compile(r"^(sse4_[12]|avx\w*|fma\d?|f16c|amx\w*|bf16|asimd\w*|sve\w*)$")
    try:
        with open("/proc/cpuinfo") as info:
            for line in info:
                if line.startswith(("flags", "Features")):
                    return sorted(word for word in line.split() if flag.match(word))
    except OSError:
        pass
    return []


def memory_bytes():
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def usable_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def slug(cpu):
    """A processor's name as that of a folder."""
    name = re.sub(r"\((r|tm)\)|\bcpu\b|@.*|\bprocessor\b|\d+-core", " ", cpu.lower())
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-") or "unknown-cpu"
