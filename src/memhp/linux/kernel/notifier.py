# SPDX-License-Identifier: GPL-2.0-only
"""
Notifier chains.

A chain is a tuple of `NotifierBlock`, highest priority first; of equal ones, the one registered first.

Source: kernel/notifier.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memhp.linux.include.notifier import NOTIFY_DONE, NOTIFY_STOP_MASK, NotifierBlock

if TYPE_CHECKING:
    from memhp.linux.state import Kernel


def blocking_notifier_chain_register(chain: tuple[NotifierBlock, ...], n: NotifierBlock) -> tuple[NotifierBlock, ...]:
    """Return the chain with `n` in its place. Source: kernel/notifier.c notifier_chain_register()"""
    at = 0
    while at < len(chain) and chain[at].priority >= n.priority:
        at += 1
    return (*chain[:at], n, *chain[at:])


def blocking_notifier_chain_unregister(chain: tuple[NotifierBlock, ...], n: NotifierBlock) -> tuple[NotifierBlock, ...]:
    """Return the chain without `n`."""
    return tuple(block for block in chain if block is not n)


def atomic_notifier_call_chain(k: Kernel, chain: tuple[NotifierBlock, ...], val: int, v: Any) -> int:
    """As blocking_notifier_call_chain(), for those who may not sleep. Source: kernel/notifier.c atomic_notifier_call_chain()"""
    return _call_chain(k, chain, val, v)


def blocking_notifier_call_chain(k: Kernel, chain: tuple[NotifierBlock, ...], val: int, v: Any) -> int:
    """
    Call each in turn until one answers with NOTIFY_STOP_MASK; return the last answer.

    Source: kernel/notifier.c notifier_call_chain()
    """
    return _call_chain(k, chain, val, v)


def _call_chain(k: Kernel, chain: tuple[NotifierBlock, ...], val: int, v: Any) -> int:
    """What both kinds of chain do. Source: kernel/notifier.c notifier_call_chain()"""
    ret = NOTIFY_DONE
    for block in chain:
        ret = block.notifier_call(k, val, v)
        if ret & NOTIFY_STOP_MASK:
            break
    return ret
