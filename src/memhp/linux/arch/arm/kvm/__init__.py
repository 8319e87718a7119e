# SPDX-License-Identifier: GPL-2.0-only
"""KVM on arm and arm64. Source: arch/arm/kvm/."""
