# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# A Tesla T4 with driver 515 (CUDA 11.7), past its end of life.
# Figures: NVIDIA's data sheet of the T4 (2560 CUDA cores, 1590 MHz boost, 16 GB); device id from the PCI id database.
driver_version=515.105.01
driver_flavour=proprietary
package_prefix=nvidia
package_revision=1
gpu.0.pci=0000:3b:00.0
gpu.0.name=Tesla T4 (simulated)
gpu.0.device_id=0x1eb8
gpu.0.subsystem_vendor=0x10de
gpu.0.subsystem_device=0x12a2
gpu.0.class=0x030200
gpu.0.uuid=GPU-74000000-5150-4000-8000-000000000001
gpu.0.serial=5150000000001
gpu.0.vbios=90.04.96.00.01
gpu.0.architecture=6
gpu.0.compute_capability=7.5
gpu.0.multiprocessors=40
gpu.0.clock_khz=1590000
gpu.0.memory_mib=15360
gpu.0.memory_reserved_mib=450
gpu.0.persistence=1
gpu.0.compute_mode=0
gpu.0.ecc=1
gpu.0.mig=na
