# SPDX-License-Identifier: GPL-2.0-only
"""KVM, the part all architectures share. Source: virt/kvm/."""
