# SPDX-License-Identifier: GPL-2.0-only
"""
Linux memory hotplug on arm64 and x86_64, as a system you can run, question and check.

>>> import memhp
>>> with memhp.connect("model:v4.9/x86_64?mem=1G") as machine:
...     block = machine.add("128M")[0]
...     machine.online(block).state
'online'

The public names are those of `__all__`; each is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memhp.errors import (
        BackendError,
        ConfigError,
        KernelBugError,
        KernelError,
        KernelHangError,
        MemhpError,
        ModelDefectError,
        UsageError,
    )
    from memhp.machine import Machine, StepResult, connect
    from memhp.scenario import Scenario
    from memhp.scenario import load as load_scenario

    __version__: str

__all__ = [
    "BackendError",
    "ConfigError",
    "KernelBugError",
    "KernelError",
    "KernelHangError",
    "Machine",
    "MemhpError",
    "ModelDefectError",
    "Scenario",
    "StepResult",
    "UsageError",
    "__version__",
    "connect",
    "load_scenario",
]

_HOMES = {
    "Machine": "machine",
    "StepResult": "machine",
    "connect": "machine",
    "Scenario": "scenario",
    "load_scenario": "scenario",
}


def __getattr__(name: str) -> Any:
    """Import a public name (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("memhp")
    if name not in __all__:
        raise AttributeError(f"module 'memhp' has no attribute {name!r}")
    from importlib import import_module

    home = import_module(f"memhp.{_HOMES.get(name, 'errors')}")
    value = getattr(home, "load" if name == "load_scenario" else name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
