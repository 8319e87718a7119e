# SPDX-License-Identifier: GPL-2.0-only
"""Machine URLs: what they say, and the one line that says what is wrong with one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memhp.backends import base
from memhp.backends.base import CaptureURL, MachineFileURL, ModelURL
from memhp.errors import UsageError
from memhp.units import GIB, KIB, MIB


def test_every_key_is_read() -> None:
    """Sizes are bytes; a plus sign stays one; percent escapes are decoded."""
    url = base.parse(
        "model:v4.9+arm64-rfc-2016/arm64?mem=1536M&smp=2&cmdline=memhp_default_state%3Donline%20a+b&page=16K&nodes=1G,512M"
        "&remedy=nohack&pfn_valid=A2"
    )
    assert url == ModelURL(
        tree="v4.9+arm64-rfc-2016", arch="arm64", mem=1536 * MIB, smp=2, cmdline="memhp_default_state=online a+b", page=16 * KIB,
        nodes=(GIB, 512 * MIB), remedy="nohack", pfn_valid="A2",
    )  # fmt: skip


def test_files_and_captures() -> None:
    """What ends in .toml is a machine file; the rest of capture: is a folder, as it stands."""
    assert base.parse("model:dir/a b%20.toml") == MachineFileURL("dir/a b%20.toml")
    assert base.parse("capture:/x/y?z") == CaptureURL("/x/y?z")


def test_ram_by_default() -> None:
    """1 GiB, or what the nodes add up to."""
    assert [base.parse(f"model:v4.9/x86_64{query}").ram for query in ("", "?nodes=1G,0,1G", "?mem=2G")] == [GIB, 2 * GIB, 2 * GIB]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "'' is no machine URL, such as model:"),
        ("v4.9/x86_64", "did you mean model:v4.9/x86_64"),
        ("pc.toml", "did you mean model:pc.toml"),
        ("modle:v4.9/x86_64", "unknown scheme 'modle'; did you mean model?"),
        ("model:", "nothing follows the colon"),
        ("model:v4.9", "TREE/ARCH is needed, such as model:v4.9/x86_64"),
        ("model:v4.8/x86_64", "unknown tree 'v4.8'; did you mean v4.9?"),
        ("model:v4.9+arm64-rfc-2017/arm64", "unknown series 'arm64-rfc-2017'; did you mean arm64-rfc-2016?"),
        ("model:v5.10+arm64-rfc-2016/arm64", "is written on v4.9, not on v5.10"),
        ("model:v4.9/arm", "unknown architecture 'arm'; did you mean arm64?"),
        ("model:v4.9/aarch64", "did you mean arm64?"),
        ("model:v4.9/amd64", "did you mean x86_64?"),
        ("model:v4.9/riscv64", "unknown architecture 'riscv64'"),
        ("model:v4.9/x86_64?men=1G", "unknown key 'men'; did you mean mem?"),
        ("model:v4.9/x86_64?mem=1G&mem=2G", "mem is given twice"),
        ("model:v4.9/x86_64?mem", "mem needs a value"),
        ("model:v4.9/x86_64?mem=", "mem needs a value"),
        ("model:v4.9/x86_64?mem=1Q", "mem '1Q' is not a size"),
        ("model:v4.9/x86_64?mem=1G&", "unknown key ''"),
        ("model:v4.9/x86_64?smp=0", "smp '0' is not a number of CPUs"),
        ("model:v4.9/x86_64?smp=²", "is not a number of CPUs"),
        ("model:v4.9/x86_64?page=5K", "page '5K' is not a page size"),
        ("model:v4.9/x86_64?nodes=1G,x", "nodes 'x' is not a size"),
        ("model:v4.9/x86_64?cmdline=%zz", "'%zz' is no percent escape"),
        ("model:v4.9/x86_64?cmdline=100%", "'%' is no percent escape"),
        ("model:v4.9/x86_64?cmdline=%ff", "does not decode to UTF-8"),
        ("model:v4.9/x86_64?cmdline=%00", "holds a NUL byte"),
        ("model:v4.9/x86_64?remedy=full", "v4.9 has no series with remedies"),
        ("model:v4.9+arm64-rfc-2016/arm64?remedy=nohak", "unknown remedy 'nohak'; did you mean nohack?"),
        ("model:v4.9/x86_64?pfn_valid=A9", "unknown definition of pfn_valid() 'A9'"),
        ("model:v4.9/x86_64?map=m.txt&mem=1G", "map says what memory there is; mem cannot"),
        ("model:v4.9/x86_64?map=m.txt&capture=c", "capture says what memory there is; map cannot"),
        ("qemu:6.12/arm64", "did you mean v6.12?"),
        ("qemu:v6.12", "RELEASE/ARCH is needed"),
        ("qemu:v6.12/arm64?modules=x", "kernel=IMAGE is missing"),
        ("qemu:v6.12/arm64?remedy=full", "unknown key 'remedy'"),
        ("host:", "host: machines cannot be opened yet"),
        ("ssh:somewhere", "ssh: machines cannot be opened yet"),
        ("model:v4.9/x86_64?cmdline=a\nb", "not printable"),
        ("model:" + "v" * 20000, "longer than 16K"),
    ],
)
def test_what_is_wrong_is_one_clear_line(url: str, message: str) -> None:
    """Every part that can be wrong is named, with the nearest that would do."""
    with pytest.raises(UsageError) as caught:
        base.parse(url)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    mem=st.one_of(st.none(), st.integers(1, 1 << 50)),
    smp=st.integers(1, 4096),
    cmdline=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40),
    page=st.sampled_from([4 * KIB, 16 * KIB, 64 * KIB]),
    nodes=st.lists(st.integers(0, 1 << 40), max_size=4).map(tuple),
    remedy=st.sampled_from(["", "full", "clear-before-add-zone"]),
)
def test_a_url_reads_back_equal(
    mem: int | None, smp: int, cmdline: str, page: int, nodes: tuple[int, ...], remedy: str
) -> None:
    """parse(str(url)) == url, whatever the command line of the kernel holds."""
    url = ModelURL(
        tree="v4.9+arm64-rfc-2016", arch="arm64", mem=mem, smp=smp, cmdline=cmdline, page=page, nodes=nodes, remedy=remedy)
    assert base.parse(str(url)) == url


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_a_usage_error(text: str) -> None:
    """Nothing but UsageError comes out of parsing."""
    for url in (text, f"model:{text}", f"model:v4.9/x86_64?{text}"):
        message = ""
        try:
            base.parse(url)
        except UsageError as err:
            message = str(err)
        assert "\n" not in message
