# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# An NVIDIA RTX PRO 6000 Blackwell Server Edition with the open modules of driver 595 (CUDA 13.2).
# Figures: NVIDIA's data sheet of the card (24064 CUDA cores, 2430 MHz boost assumed for the server edition, 96 GB); device id from the
# PCI id database.
driver_version=595.91.07
driver_flavour=open
package_prefix=nvidia
package_revision=1
gpu.0.pci=0000:3b:00.0
gpu.0.name=NVIDIA RTX PRO 6000 Blackwell Server Edition (simulated)
gpu.0.device_id=0x2bb5
gpu.0.subsystem_vendor=0x10de
gpu.0.subsystem_device=0x204e
gpu.0.class=0x030200
gpu.0.uuid=GPU-60000000-5950-4000-8000-000000000001
gpu.0.serial=5950000000001
gpu.0.vbios=98.02.6A.00.03
gpu.0.architecture=10
gpu.0.compute_capability=12.0
gpu.0.multiprocessors=188
gpu.0.clock_khz=2430000
gpu.0.memory_mib=97887
gpu.0.memory_reserved_mib=638
gpu.0.persistence=1
gpu.0.compute_mode=0
gpu.0.ecc=1
gpu.0.mig=0
