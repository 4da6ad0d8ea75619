# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# An NVIDIA L4 with the open modules of driver 580 (CUDA 13.0).
# Figures: NVIDIA's data sheet of the L4 (7424 CUDA cores, 2040 MHz boost, 24 GB); device id from the PCI id database.
driver_version=580.178.04
driver_flavour=open
package_prefix=nvidia
package_revision=1
gpu.0.pci=0000:3b:00.0
gpu.0.name=NVIDIA L4 (simulated)
gpu.0.device_id=0x27b8
gpu.0.subsystem_vendor=0x10de
gpu.0.subsystem_device=0x16ca
gpu.0.class=0x030200
gpu.0.uuid=GPU-14000000-5800-4000-8000-000000000001
gpu.0.serial=5800000000001
gpu.0.vbios=95.04.29.00.06
gpu.0.architecture=8
gpu.0.compute_capability=8.9
gpu.0.multiprocessors=58
gpu.0.clock_khz=2040000
gpu.0.memory_mib=23034
gpu.0.memory_reserved_mib=465
gpu.0.persistence=1
gpu.0.compute_mode=0
gpu.0.ecc=1
gpu.0.mig=na
