# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# An NVIDIA A10 with the open modules of driver 615, whose nvidia-smi has other fields than the branches before it.
# Figures: NVIDIA's data sheet of the A10 (9216 CUDA cores, 1695 MHz boost, 24 GB); device id from the PCI id database.
driver_version=615.71.09
driver_flavour=open
package_prefix=nvidia
package_revision=1
gpu.0.pci=0000:3b:00.0
gpu.0.name=NVIDIA A10 (simulated)
gpu.0.device_id=0x2236
gpu.0.subsystem_vendor=0x10de
gpu.0.subsystem_device=0x1482
gpu.0.class=0x030200
gpu.0.uuid=GPU-a1000000-6150-4000-8000-000000000001
gpu.0.serial=6150000000001
gpu.0.vbios=94.02.75.00.01
gpu.0.architecture=7
gpu.0.compute_capability=8.6
gpu.0.multiprocessors=72
gpu.0.clock_khz=1695000
gpu.0.memory_mib=23028
gpu.0.memory_reserved_mib=512
gpu.0.persistence=1
gpu.0.compute_mode=0
gpu.0.ecc=1
gpu.0.mig=na
