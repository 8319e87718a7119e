# SPDX-License-Identifier: GPL-2.0-only
"""Build every C memblock that can be built here, and say what is missing for the others."""

from __future__ import annotations

import sys

from tests.oracles.memblock_c import RELEASES, Unavailable, build


def main() -> int:
    """Return 1 if one cannot be built."""
    bad = 0
    for release in RELEASES:
        try:
            for numa in (True, False):
                print(f"memblock of {release}{'' if numa else ' without NUMA'}: {build(release, numa=numa)}")
        except Unavailable as err:
            bad = 1
            print(f"memblock of {release}: {err}; on Debian: apt-get install gcc linux-source-{release}", file=sys.stderr)
    return bad


if __name__ == "__main__":
    sys.exit(main())
