# SPDX-License-Identifier: MIT
"""``python -m lucid_c`` and the ``lucid-c`` command."""

import sys

from lucid_c.cli import main

if __name__ == "__main__":
    sys.exit(main())
