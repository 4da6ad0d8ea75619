# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# A Tesla T4 with driver 470 (CUDA 11.4): an old host that must not be updated. Keys: tests/simhost/README.md.
driver_version=470.256.02
driver_flavour=proprietary
package_prefix=nvidia-tesla-470
package_revision=2
gpu.0.pci=0000:af:00.0
gpu.0.name=Tesla T4 (simulated)
gpu.0.device_id=0x1eb8
gpu.0.subsystem_vendor=0x10de
gpu.0.subsystem_device=0x12a2
gpu.0.class=0x030200
gpu.0.uuid=GPU-74000000-4702-4256-8002-000000000001
gpu.0.serial=0000000470001
gpu.0.vbios=90.04.96.00.01
gpu.0.architecture=6
gpu.0.compute_capability=7.5
gpu.0.multiprocessors=40
gpu.0.clock_khz=1590000
gpu.0.memory_mib=15109
gpu.0.memory_reserved_mib=0
gpu.0.persistence=0
gpu.0.compute_mode=0
gpu.0.ecc=1
gpu.0.mig=na
