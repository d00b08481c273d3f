# SPDX-License-Identifier: MIT
"""The memory that a process has needed; cold.py can import this without paying for more."""

import sys


def peak_rss():
    """Largest resident size of this process in bytes. Linux's own figure where there is one:
    getrusage also counts what the parent had before exec."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
