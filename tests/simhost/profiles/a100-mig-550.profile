# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# An NVIDIA A100 with driver 550 (CUDA 12.4), split into three MIG devices.
# Figures: NVIDIA's white paper on Ampere (108 multiprocessors, 1410 MHz boost, 40 GB) and the MIG user guide; device id from the PCI id
# database.
driver_version=550.163.01
driver_flavour=proprietary
package_prefix=nvidia
package_revision=2
gpu.0.pci=0000:07:00.0
gpu.0.name=NVIDIA A100-SXM4-40GB (simulated)
gpu.0.device_id=0x20b0
gpu.0.subsystem_vendor=0x10de
gpu.0.subsystem_device=0x134f
gpu.0.class=0x030200
gpu.0.uuid=GPU-a1004000-5500-4000-8000-000000000001
gpu.0.serial=5500000000001
gpu.0.vbios=92.00.45.00.03
gpu.0.architecture=7
gpu.0.compute_capability=8.0
gpu.0.multiprocessors=108
gpu.0.clock_khz=1410000
gpu.0.memory_mib=40960
gpu.0.memory_reserved_mib=569
gpu.0.persistence=1
gpu.0.compute_mode=0
gpu.0.ecc=1
gpu.0.mig=1
gpu.0.mig_device.0=3g.20gb,2,0,MIG-a1004000-0002-5550-8000-000000000001,19968
gpu.0.mig_device.1=1g.5gb,9,0,MIG-a1004000-0009-5550-8000-000000000002,4864
gpu.0.mig_device.2=1g.5gb,10,0,MIG-a1004000-0010-5550-8000-000000000003,4864
