# SPDX-License-Identifier: GPL-2.0-only
"""`python -m memhp` is `memhp`."""

from __future__ import annotations

import sys

from memhp.cli import main

if __name__ == "__main__":
    sys.exit(main())
