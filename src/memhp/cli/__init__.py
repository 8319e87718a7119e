# SPDX-License-Identifier: GPL-2.0-only
"""
The command line: `main()`.

`COMMANDS` is a table of names and one line of help each, so that `memhp --help` imports no command. The module of a command,
`memhp.cli.NAME`, has `add_parser(commands)` and `run(args) -> int`, and is imported when the command is called.

Exit codes: 0 done; 1 the kernel refused; 2 usage; 3 the machine could not be reached; 4 a check found something.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from memhp.cli import common
from memhp.cli.common import Parser
from memhp.errors import BackendError, ConfigError, KernelBugError, KernelError, MemhpError, ModelDefectError, UsageError

COMMANDS = {
    "explain": "tell the mail's story: two call trees, the answers of pfn_valid(), where they part",
    "boot": "make a machine file",
    "run": "run a scenario: one line a step",
    "ls": "list memory blocks: ranges, state, zones, node, device",
    "add": "hot-add memory by address or size",
    "plug": "plug a DIMM",
    "online": "online memory blocks",
    "capture": "record a machine: its files into a folder",
    "compare": "the differences of two machines or recordings, or of one scenario on two machines",
    "check": "hold a pfn_valid() against everything that asks it",
    "derive": "find the pfn_valid() that serves everything that asks it",
    "trees": "list the kernels that are known",
    "changes": "what two kernels do differently, by fact and commit",
    "vm": "real kernels in QEMU: what is missing, get a kernel, boot it, its console",
}

_INTERRUPTED = 130
_BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one command.

    Args:
        argv: The words after `memhp`; None: those of this process.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            code = _main(list(sys.argv[1:] if argv is None else argv))
            sys.stdout.flush()
            return code
        except (MemhpError, OSError) as err:
            if isinstance(err, BrokenPipeError):
                raise
            sys.stdout.flush()
            common.warn(_message(err))
            if isinstance(err, BackendError) and err.output and os.environ.get("MEMHP_DEBUG"):
                print(err.output, file=sys.stderr)
            return _code(err)
    except BrokenPipeError:
        # Whoever read our output has left; what Python still wants to write at exit goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        print("memhp: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except Exception as err:  # a defect of memhp: people get one line, developers the rest
        if os.environ.get("MEMHP_DEBUG"):
            raise
        common.warn(f"defect: {type(err).__name__}: {err} (MEMHP_DEBUG=1 shows where; please report)")
        return common.UNREACHABLE


def _main(argv: list[str]) -> int:
    name = _find_command(argv)
    parser = _parser(name)
    args = parser.parse_args(argv)
    if name is None:
        parser.print_help()
        return common.USAGE if argv else common.DONE
    code: int = importlib.import_module(f"memhp.cli.{name}").run(args)
    return code


def _find_command(argv: list[str]) -> str | None:
    """Return the command among the words; UsageError if the first word that could be one is none."""
    words = iter(argv)
    for word in words:
        if word in ("-m", "--machine"):
            next(words, None)
        elif word in ("-h", "--help", "--version"):
            return None
        elif not word.startswith("-"):
            if word not in COMMANDS:
                from memhp.errors import did_you_mean

                raise UsageError(f"no command {word!r}{did_you_mean(word, COMMANDS)}")
            return word
    return None


def _parser(name: str | None) -> Parser:
    """Return the parser; only the command `name` has more than its one line."""
    parser = Parser(
        prog="memhp",
        description="Linux memory hotplug on arm64 and x86_64, as a system you can run, question and check.",
        epilog="exit codes: 0 done, 1 the kernel refused, 2 usage, 3 machine not reached, 4 a check found something",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    common.add_machine(parser)
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print data as JSON")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", dest="command")
    for command, help in COMMANDS.items():
        if command == name:
            try:
                module = importlib.import_module(f"memhp.cli.{command}")
            except ModuleNotFoundError as err:
                if err.name != f"memhp.cli.{command}":
                    raise
                raise UsageError(f"the command {command} is not part of this installation") from None
            module.add_parser(commands)
        else:
            commands.add_parser(command, help=help)
    return parser


class _Version(argparse.Action):
    """Print the version, looked up only now."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"memhp {version('memhp')}")
        except PackageNotFoundError:
            print("memhp, not installed")
        parser.exit()


def _message(err: BaseException) -> str:
    """Return an error as one line."""
    if isinstance(err, KernelError):
        from memhp.machine import explain_error

        path = f"{err.path}: " if err.path else ""
        return f"{path}{err.name}: {explain_error(err)}"
    if isinstance(err, ModelDefectError):
        return f"defect of the model, please report: {err}"
    if isinstance(err, OSError):
        return f"{err.filename}: {err.strerror}" if err.filename else str(err)
    return str(err)


def _code(err: BaseException) -> int:
    if isinstance(err, KernelError | KernelBugError):
        return common.REFUSED
    if isinstance(err, UsageError | ConfigError):
        return common.USAGE
    if isinstance(err, BackendError | ModelDefectError):
        return common.UNREACHABLE
    return common.UNREACHABLE
