# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# An NVIDIA A10 with driver 535 (CUDA 12.2): the everyday data-center host. Keys: tests/simhost/README.md.
driver_version=535.274.02
driver_flavour=proprietary
package_prefix=nvidia-tesla-535
package_revision=1
gpu.0.pci=0000:3b:00.0
gpu.0.name=NVIDIA A10 (simulated)
gpu.0.device_id=0x2236
gpu.0.subsystem_vendor=0x10de
gpu.0.subsystem_device=0x1482
gpu.0.class=0x030200
gpu.0.uuid=GPU-a1000000-5350-4274-8002-000000000001
gpu.0.serial=0000000535001
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
