# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# A Tesla V100 with the proprietary modules of driver 580 (CUDA 13.0): the last branch for it, and no others drive it.
# Figures: NVIDIA's data sheet of the Tesla V100 (5120 CUDA cores, 1530 MHz boost, 16 GB); device id from the PCI id database.
driver_version=580.178.04
driver_flavour=proprietary
package_prefix=nvidia
package_revision=1
gpu.0.pci=0000:3b:00.0
gpu.0.name=Tesla V100-SXM2-16GB (simulated)
gpu.0.device_id=0x1db1
gpu.0.subsystem_vendor=0x10de
gpu.0.subsystem_device=0x1212
gpu.0.class=0x030200
gpu.0.uuid=GPU-70000000-5800-4000-8000-000000000001
gpu.0.serial=5800000000001
gpu.0.vbios=88.00.4F.00.09
gpu.0.architecture=5
gpu.0.compute_capability=7.0
gpu.0.multiprocessors=80
gpu.0.clock_khz=1530000
gpu.0.memory_mib=16384
gpu.0.memory_reserved_mib=0
gpu.0.persistence=1
gpu.0.compute_mode=0
gpu.0.ecc=1
gpu.0.mig=na
