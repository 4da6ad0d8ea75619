# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA GPUs by PCI device id: product, architecture, compute capability, and which drivers drive them.

Needed where no driver answers for the compute capability: no driver loaded yet, or an nvidia-smi too old to be asked (470) and no pynvml;
and to say which driver a host can have at all.

Source: supported-gpus.json (zlib licence) of the driver branches in SAMPLED, merged by device id; names as the newest branch spells them,
for boards without a subsystem entry where there is one. Kepler's compute capability (3.0 to 3.7) is not in that file and stays unknown
here: no variant has code for it. The first branch is only as fine as the sample: a GPU listed first by 580 may have been driven by 570.

To update: add the ids that the newest branch's supported-gpus.json has and this table has not, each below the heading that says its
architecture, compute capability, kernel-module flavour, first branch of the sample that lists it (- for the oldest, or where no branch of
the sample lists it) and last branch that drives it (- for still driven), and add the branch to SAMPLED.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from ansible_collections.difyops.gpu.plugins.plugin_utils import _versions

# The branches whose lists were read.
SAMPLED: tuple[int, ...] = (450, 460, 470, 525, 535, 550, 580, 595, 615)

# NVIDIA's kernel modules come proprietary and open. What a GPU can be driven with, on branches that have both.
PROPRIETARY, EITHER, OPEN = "proprietary", "either", "open"

# From this branch on there are no proprietary modules any more. (Driver guide of R620, "Proprietary Kernel Modules Removed".)
OPEN_ONLY_SINCE = 620

# From this branch on there are open modules that are fit for production, for data center GPUs first. (Driver guide of R515.)
OPEN_SINCE = 515

# Product names of NVIDIA's data center line. The others (GeForce, RTX, Quadro, TITAN, DGX Spark's GB10) are not in it.
_DATA_CENTER = re.compile(
    r"(NVIDIA )?(Tesla [A-Z]|(A[0-9]{1,3}[A-Z]?|L[0-9]{1,2}S?|H[0-9]{2,3}|B[0-9]{3}|G[BH][0-9]{3})\b(?! \d+GB Active))"
)

# A Grace CPU with a GPU of its own: open modules only, whatever the architecture of the GPU.
_GRACE = re.compile(r"(NVIDIA )?G[BH][0-9]+")


class Product(NamedTuple):
    """What a PCI device id says.

    `compute_capability` is None where the table does not know it. `flavour` is PROPRIETARY, EITHER or OPEN: the kernel modules that
    drive it on branches which have both. `first_branch` is the first branch of SAMPLED that lists it (None: listed by the oldest, or by
    none of them), `last_branch` the last branch that drives it (None: still driven).
    """

    name: str
    architecture: str
    compute_capability: str | None
    flavour: str
    first_branch: int | None
    last_branch: int | None


class Rule(NamedTuple):
    """What NVIDIA says about a whole architecture: the modules that drive it, and the last branch that does."""

    flavour: str
    last_branch: int | None
    capability_major: tuple[str, ...]


# NVIDIA's driver guides (legacy branches; open kernel modules). The tests compare every row of the table with these.
ARCHITECTURES: dict[str, Rule] = {
    "kepler": Rule(PROPRIETARY, 470, ("3",)),
    "maxwell": Rule(PROPRIETARY, 580, ("5",)),
    "pascal": Rule(PROPRIETARY, 580, ("6",)),
    "volta": Rule(PROPRIETARY, 580, ("7.0", "7.2")),
    "turing": Rule(EITHER, None, ("7.5",)),
    "ampere": Rule(EITHER, None, ("8.0", "8.6", "8.7")),
    "ada": Rule(EITHER, None, ("8.9",)),
    "hopper": Rule(EITHER, None, ("9",)),
    "blackwell": Rule(OPEN, None, ("10.0", "10.1", "10.3", "11", "12")),
    "rubin": Rule(OPEN, None, ("10.7",)),
}

# [architecture, compute capability, flavour, first branch, last branch], then "product: device ids" (hexadecimal).
_TABLE = """\
[kepler - proprietary - 367]
GRID K340: 0fef
GRID K1: 0ff2
GRID K2: 11bf
[kepler - proprietary - 470]
NVIDIA GeForce GT 640: 0fc0 0fc1 1282
NVIDIA GeForce GT 630: 0fc2 1284
NVIDIA GeForce GTX 650: 0fc6 11c8
NVIDIA GeForce GT 740: 0fc8 11c5 11cb
NVIDIA GeForce GT 730: 0fc9 1287
GeForce GT 640M: 0fd2 0fd8
GeForce GT 745M: 0fe2 0fe3
Quadro K420: 0ff3
Quadro K2000D: 0ff9
Quadro K600: 0ffa
NVS 510: 0ffd
Quadro K2000: 0ffe
Quadro 410: 0fff
NVIDIA GeForce GTX TITAN Z: 1001
NVIDIA GeForce GTX 780: 1004 1007
NVIDIA GeForce GTX TITAN: 1005
NVIDIA GeForce GTX 780 Ti: 1008 100a
NVIDIA GeForce GTX TITAN Black: 100c
Tesla K20Xm: 1021
Tesla K20c: 1022
Tesla K40m: 1023
Tesla K40c: 1024
Tesla K20s: 1026
Tesla K40st: 1027
Tesla K20m: 1028
Tesla K40s: 1029
Tesla K40t: 102a
Tesla K80: 102d
Quadro K6000: 103a
Quadro K5200: 103c
NVIDIA GeForce GTX 680: 1180
NVIDIA GeForce GTX 660 Ti: 1183
NVIDIA GeForce GTX 770: 1184
NVIDIA GeForce GTX 660: 1185 1195 11c0
NVIDIA GeForce GTX 760: 1187
NVIDIA GeForce GTX 690: 1188
NVIDIA GeForce GTX 670: 1189
GRID K520: 118a
NVIDIA GeForce GTX 760 (192-bit): 118e
Tesla K10: 118f
NVIDIA GeForce GTX 760 Ti OEM: 1193
Tesla K8: 1194
GeForce GTX 870M: 1199
Quadro K4200: 11b4
Quadro K5000: 11ba
NVIDIA GeForce GTX 650 Ti BOOST: 11c2
NVIDIA GeForce GTX 650 Ti: 11c3 11c6
NVIDIA GeForce GTX 645: 11c4
GeForce GTX 760M: 11e3
Quadro K4000: 11fa
NVIDIA GeForce GT 635: 1280
NVIDIA GeForce GT 710: 1281 1289 128b
NVIDIA GeForce GT 720: 1286 1288
GeForce GT 730M: 0fe1 1290 1293
GeForce GT 740M: 0fdf 1292
GeForce 710M: 1295
GeForce 920M: 1299
GeForce GT 755M: 0fcd 0fea
GeForce GT 640M LE: 0fce 0fd3
GeForce GT 650M: 0fd1 0fd5
GeForce GTX 660M: 0fd4 0fe0
GeForce GT 645M: 0fd9
GeForce GT 750M: 0fe4 0fe9
GeForce 710A: 0fec
GeForce 820M: 0fed
GeForce 810M: 0fee
Quadro K1100M: 0ff6
Quadro K500M: 0ff8
Quadro K2000M: 0ffb
Quadro K1000M: 0ffc
GeForce GTX 880M: 1198
GeForce GTX 860M: 119a
GeForce GTX 775M: 119d
GeForce GTX 780M: 119e 119f
GeForce GTX 680M: 11a0
GeForce GTX 670MX: 11a1
GeForce GTX 675MX: 11a2 11a7
GeForce GTX 680MX: 11a3
Quadro K3100M: 11b6
Quadro K4100M: 11b7
Quadro K5100M: 11b8
Quadro K5000M: 11bc
Quadro K4000M: 11bd
Quadro K3000M: 11be
GeForce GTX 770M: 11e0
GeForce GTX 765M: 11e1 11e2
Quadro K2100M: 11fc
GeForce GT 735M: 1291
GeForce 825M: 1296
GeForce GT 720M: 1298
GeForce 910M: 129a
Quadro K610M: 12b9
Quadro K510M: 12ba
[maxwell 5.0 proprietary - 580]
NVIDIA GeForce 830M: 1340
NVIDIA GeForce 840M: 1341 1393
NVIDIA GeForce 845M: 1344 1390 1398
NVIDIA GeForce 930M: 1346 1349
NVIDIA GeForce 940M: 1347 139c
NVIDIA GeForce 945M: 1348 1399
NVIDIA GeForce 940MX: 134b 134d
NVIDIA GeForce 930MX: 134e
NVIDIA GeForce 920MX: 134f
NVIDIA N15M-Q3: 137a
Quadro M520: 137b
NVIDIA GeForce 940A: 137d
NVIDIA GeForce GTX 750 Ti: 1380 139d
NVIDIA GeForce GTX 750: 1381
NVIDIA GeForce GTX 745: 1382
NVIDIA GeForce GTX 850M: 1391
NVIDIA GeForce GTX 860M: 1392
NVIDIA GeForce GTX 950M: 139a
NVIDIA GeForce GTX 960M: 139b
Quadro M2000M: 13b0
Quadro M1000M: 13b1
Quadro M600M: 13b2
Quadro K2200M: 13b3
Quadro M620: 13b4
Quadro M1200: 13b6
NVS 810: 13b9
Quadro K2200: 13ba
Quadro K620: 13bb
Quadro K1200: 13bc
[maxwell 5.2 proprietary - 580]
NVIDIA GeForce GTX 980: 13c0 13da 161a
NVIDIA GeForce GTX 970: 13c2
NVIDIA GeForce GTX 980M: 13d7 1617
NVIDIA GeForce GTX 970M: 13d8 1618
NVIDIA GeForce GTX 965M: 13d9 1427 1619 1667
Quadro M5000: 13f0
Quadro M4000: 13f1
Tesla M60: 13f2
Tesla M6: 13f3
Quadro M5000M: 13f8
Quadro M4000M: 13f9
Quadro M3000M: 13fa
Quadro M5500: 13fb
NVIDIA GeForce GTX 960: 1401 1406
NVIDIA GeForce GTX 950: 1402
NVIDIA GeForce GTX 750: 1407
Quadro M2000: 1430
Tesla M4: 1431
Quadro M2200: 1436
NVIDIA GeForce MX130: 174d
NVIDIA GeForce MX110: 174e
NVIDIA GeForce 940MX: 179c
NVIDIA GeForce GTX TITAN X: 17c2
NVIDIA GeForce GTX 980 Ti: 17c8
Quadro M6000: 17f0
Quadro M6000 24GB: 17f1
Tesla M40: 17fd
[pascal 6.0 proprietary - 580]
Quadro GP100: 15f0
Tesla P100-PCIE-12GB: 15f7
Tesla P100-PCIE-16GB: 15f8
Tesla P100-SXM2-16GB: 15f9
[pascal 6.1 proprietary - 580]
NVIDIA TITAN X (Pascal): 1b00
NVIDIA TITAN Xp: 1b02
NVIDIA GeForce GTX 1080 Ti: 1b06
Quadro P6000: 1b30
Tesla P40: 1b38
NVIDIA GeForce GTX 1080: 1b80 1ba0 1be0
NVIDIA GeForce GTX 1070: 1b81 1ba1 1ba2 1be1
NVIDIA GeForce GTX 1070 Ti: 1b82
NVIDIA GeForce GTX 1060 6GB: 1b83 1c03 1c06
NVIDIA GeForce GTX 1060 3GB: 1b84 1c02
NVIDIA P104-100: 1b87
Quadro P5000: 1bb0 1bb6
Quadro P4000: 1bb1 1bb7
Tesla P4: 1bb3
Tesla P6: 1bb4
Quadro P5200: 1bb5
Quadro P3000: 1bb8
Quadro P4200: 1bb9
Quadro P3200: 1bbb
NVIDIA P104-101: 1bc7
NVIDIA GeForce GTX 1060 5GB: 1c04
NVIDIA P106-100: 1c07
NVIDIA P106-090: 1c09
NVIDIA GeForce GTX 1060: 1c20 1c23 1c60
NVIDIA GeForce GTX 1050 Ti: 1c21 1c61 1c82 1c8c 1c8f
NVIDIA GeForce GTX 1050: 1c22 1c62 1c81 1c83 1c8d 1c91 1c92
Quadro P2000: 1c30 1cba 1cfa
Quadro P2200: 1c31
NVIDIA GeForce MX150: 1c90 1d10 1d12
NVIDIA GeForce MX350: 1c94 1c96
Quadro P1000: 1cb1 1cbb 1cfb
Quadro P600: 1cb2 1cbc
Quadro P400: 1cb3
Quadro P620: 1cb6 1cbd
NVIDIA GeForce GT 1030: 1d01
NVIDIA GeForce MX230: 1d11
NVIDIA GeForce MX250: 1d13 1d52
NVIDIA GeForce MX330: 1d16
Quadro P500: 1d33
Quadro P520: 1d34
[pascal 6.1 proprietary 460 580]
NVIDIA GeForce GT 1010: 1d02
[volta 7.0 proprietary - 580]
NVIDIA TITAN V: 1d81
Tesla V100-SXM2-16GB: 1db1 1df5
Tesla V100-FHHL-16GB: 1db3
Tesla V100-PCIE-16GB: 1db4
Tesla V100-SXM2-32GB: 1db5
Tesla V100-PCIE-32GB: 1db6
Tesla V100-DGXS-32GB: 1db7
Tesla V100-SXM3-32GB: 1db8
Quadro GV100: 1dba
Tesla PG500-216: 1df0
Tesla PG503-216: 1df2
Tesla V100S-PCIE-32GB: 1df6
[turing 7.5 either - -]
NVIDIA TITAN RTX: 1e02
NVIDIA GeForce RTX 2080 Ti: 1e04 1e07
Quadro RTX 6000: 1e30 1e36
Quadro RTX 8000 or Quadro RTX 6000: 1e78
NVIDIA GeForce RTX 2080 SUPER: 1e81
NVIDIA GeForce RTX 2080: 1e82 1e87 1e90 1ed0
NVIDIA GeForce RTX 2070 SUPER: 1e84 1ec2 1ec7
NVIDIA GeForce RTX 2060: 1e89 1f08 1f11 1f12 1f15 1f51 1f55
NVIDIA GeForce RTX 2070 Super: 1e91 1ed1
NVIDIA GeForce RTX 2080 Super: 1e93 1ed3
Quadro RTX 5000: 1eb0 1eb5 1ef5
Quadro RTX 4000: 1eb1 1eb6
Tesla T4: 1eb8
NVIDIA GeForce RTX 2070: 1f02 1f07 1f10 1f14 1f50 1f54
NVIDIA GeForce RTX 2060 SUPER: 1f06 1f42 1f47
NVIDIA Graphics Device: 1f09
NVIDIA GeForce GTX 1650: 1f0a 1f82 1f91 1f96 1f99 2188
Quadro RTX 3000: 1f36 1f76
NVIDIA GeForce GTX 1650 Ti: 1f95 2192
NVIDIA GeForce MX450: 1f97 1f98 1f9c
NVIDIA T1000 or NVIDIA DGX Display: 1fb0
Quadro T2000: 1fb8
Quadro T1000: 1fb9 1ff9
NVIDIA T500: 1fbb
NVIDIA GeForce GTX 1660 Ti: 2182 2191 21d1
NVIDIA GeForce GTX 1660: 2184
NVIDIA GeForce GTX 1650 SUPER: 2187
NVIDIA GeForce GTX 1660 SUPER: 21c4
[turing 7.5 either 460 -]
NVIDIA GeForce GTX 1650: 1f9d 1fdd
NVIDIA CMP 50HX: 1e09
NVIDIA CMP 40HX: 1f0b
NVIDIA T600: 1fb1
NVIDIA T400: 1fb2
NVIDIA T600 Laptop GPU: 1fba
NVIDIA T1200 Laptop GPU: 1fbc
NVIDIA CMP 30HX: 2189
[turing 7.5 either 470 -]
NVIDIA GeForce RTX 2060: 1f03
NVIDIA T600 Laptop GPU: 1fb6
NVIDIA T4G: 1eb4
NVIDIA GeForce MX550: 1f9f 1fa0
NVIDIA T550 Laptop GPU: 1fb7
NVIDIA T1000 8GB: 1ff0
NVIDIA T400 4GB or NVIDIA T400E: 1ff2
[turing 7.5 either 525 -]
NVIDIA GeForce GTX 1630: 1f83
[ampere 8.0 either - -]
NVIDIA A100-SXM4-40GB: 20b0
NVIDIA A100-PCIE-40GB: 20b1 20f1
NVIDIA A100-SXM4-80GB or NVIDIA PG509-210: 20b2
[ampere 8.0 either 460 -]
NVIDIA PG506-232: 20b6
NVIDIA A30: 20b7
[ampere 8.0 either 470 -]
NVIDIA A100-SXM-64GB: 20b3
NVIDIA A100 80GB PCIe: 20b5
NVIDIA A100-PG506-207: 20f0
NVIDIA A100-PG506-217: 20f2
[ampere 8.0 either 525 -]
NVIDIA A800-SXM4-80GB: 20f3
NVIDIA A800 80GB PCIe or NVIDIA A800 80GB PCIe LC: 20f5
[ampere 8.0 either 535 -]
NVIDIA A800-SXM4-40GB: 20bd
NVIDIA A800 40GB Active: 20f6
NVIDIA AX800: 20fd
[ampere 8.6 either 460 -]
NVIDIA GeForce RTX 3090: 2204
NVIDIA GeForce RTX 3080: 2206 2216
NVIDIA GeForce RTX 3080 Ti: 2208
NVIDIA RTX A6000: 2230
NVIDIA RTX A5000: 2231
NVIDIA A40: 2235
NVIDIA A10: 2236
NVIDIA A10G: 2237
NVIDIA GeForce RTX 3070 Ti: 2482
NVIDIA GeForce RTX 3070: 2484 2488
NVIDIA GeForce RTX 3060 Ti: 2486 2489
NVIDIA GeForce RTX 3080 Laptop GPU: 249c 24dc
NVIDIA GeForce RTX 3070 Laptop GPU: 249d 24dd
NVIDIA RTX A4000: 24b0
NVIDIA RTX A5000 Laptop GPU: 24b6
NVIDIA RTX A4000 Laptop GPU: 24b7
NVIDIA RTX A3000 Laptop GPU: 24b8
NVIDIA GeForce RTX 3060: 2503 2504
NVIDIA GeForce RTX 3060 Laptop GPU: 2520 2560
NVIDIA GeForce RTX 3050 Ti Laptop GPU: 2523 2563 25a0 25e0
NVIDIA GeForce RTX 3050 Laptop GPU: 25a2 25a5 25e2 25e5
NVIDIA RTX A2000 Laptop GPU: 25b8
[ampere 8.6 either 470 -]
NVIDIA GeForce RTX 3080: 220a
NVIDIA GeForce RTX 3060 Ti: 2414
NVIDIA GeForce RTX 3060: 2487
NVIDIA GeForce RTX 3090 Ti: 2203
NVIDIA CMP 90HX: 220d
NVIDIA RTX A4500: 2232
NVIDIA GeForce RTX 3080 Ti Laptop GPU: 2420 2460
NVIDIA RTX A5500 Laptop GPU: 2438
NVIDIA CMP 70HX: 248a
NVIDIA GeForce RTX 3070 Ti Laptop GPU: 24a0 24e0
NVIDIA RTX A3000 12GB Laptop GPU: 24b9 24bb
NVIDIA RTX A4500 Laptop GPU: 24ba
NVIDIA RTX A4500 Embedded GPU: 24fa
NVIDIA GeForce RTX 3050: 2507
NVIDIA GeForce RTX 3050 OEM: 2508
NVIDIA RTX A2000: 2531
NVIDIA RTX A2000 12GB: 2571
NVIDIA GeForce MX570: 25a6
NVIDIA GeForce RTX 2050: 25a7 25a9
NVIDIA A16 or NVIDIA A2: 25b6
NVIDIA RTX A1000 Laptop GPU: 25b9
NVIDIA RTX A2000 8GB Laptop GPU: 25ba
NVIDIA RTX A500 Laptop GPU: 25bb
NVIDIA RTX A1000 Embedded GPU: 25f9
NVIDIA RTX A2000 Embedded GPU: 25fa
[ampere 8.6 either 525 -]
NVIDIA GeForce RTX 3070 Ti: 2207
NVIDIA GeForce RTX 3060 Ti: 24c9
NVIDIA GeForce RTX 3060: 24c7 2544
NVIDIA GeForce RTX 3060 Laptop GPU: 2521
NVIDIA GeForce RTX 3050: 2582
NVIDIA GeForce RTX 2050: 25ad 25ed
NVIDIA RTX A500 Laptop GPU: 25bd
NVIDIA RTX A5500: 2233
NVIDIA A10M: 2238
NVIDIA RTX A4000H: 24b1
NVIDIA GeForce MX570 A: 25aa
NVIDIA GeForce RTX 3050 4GB Laptop GPU: 25ab
NVIDIA GeForce RTX 3050 6GB Laptop GPU: 25ac 25ec
NVIDIA RTX A1000 6GB Laptop GPU: 25bc
NVIDIA RTX A500 Embedded GPU: 25fb
[ampere 8.6 either 535 -]
NVIDIA GeForce RTX 3050: 2584
[ampere 8.6 either 550 -]
NVIDIA RTX A1000: 25b0
NVIDIA RTX A400: 25b2
[ada 8.9 either 525 -]
NVIDIA GeForce RTX 4090: 2684
NVIDIA RTX 6000 Ada Generation: 26b1
NVIDIA L40: 26b5
NVIDIA GeForce RTX 4080: 2704
NVIDIA GeForce RTX 4090 Laptop GPU: 2717 2757
NVIDIA RTX 5000 Ada Generation Laptop GPU: 2730
NVIDIA RTX 5000 Ada Generation Embedded GPU: 2770
NVIDIA GeForce RTX 4070 Ti: 2782
NVIDIA GeForce RTX 4070: 2786
NVIDIA GeForce RTX 4080 Laptop GPU: 27a0 27e0
NVIDIA RTX 4000 SFF Ada Generation: 27b0
NVIDIA L4: 27b8
NVIDIA RTX 4000 Ada Generation Laptop GPU: 27ba
NVIDIA RTX 3500 Ada Generation Laptop GPU: 27bb
NVIDIA GeForce RTX 4060 Ti: 2803 2805
NVIDIA GeForce RTX 4070 Laptop GPU: 2820 2860
NVIDIA RTX 3000 Ada Generation Laptop GPU: 2838
NVIDIA GeForce RTX 4060: 2882
NVIDIA GeForce RTX 4060 Laptop GPU: 28a0 28e0
NVIDIA GeForce RTX 4050 Laptop GPU: 28a1 28e1
NVIDIA RTX 2000 Ada Generation Laptop GPU: 28b8
NVIDIA RTX 2000 Ada Generation Embedded GPU: 28f8
[ada 8.9 either 535 -]
NVIDIA RTX 5000 Ada Generation: 26b2
NVIDIA RTX 5880 Ada Generation: 26b3
NVIDIA L40S: 26b9
NVIDIA L20: 26ba
NVIDIA RTX 4500 Ada Generation: 27b1
NVIDIA RTX 4000 Ada Generation: 27b2
NVIDIA L2: 27b6
NVIDIA RTX 3500 Ada Generation Embedded GPU: 27fb
NVIDIA RTX 1000 Ada Generation Laptop GPU: 28b9
NVIDIA RTX 500 Ada Generation Laptop GPU: 28ba 28bb
[ada 8.9 either 550 -]
NVIDIA GeForce RTX 4070: 2709
NVIDIA GeForce RTX 4060 Ti: 2788
NVIDIA GeForce RTX 4060: 2808
NVIDIA GeForce RTX 4090 D: 2685
NVIDIA GeForce RTX 4080 SUPER: 2702
NVIDIA GeForce RTX 4070 Ti SUPER: 2705
NVIDIA GeForce RTX 4070 SUPER: 2783
NVIDIA GeForce RTX 3050 A Laptop GPU: 2822 28a3 28e3
NVIDIA RTX 2000 Ada Generation or NVIDIA RTX 2000E Ada Generation: 28b0
[ada 8.9 either 580 -]
NVIDIA GeForce RTX 4070 Ti SUPER: 2689
[hopper 9.0 either 525 -]
NVIDIA H800 PCIe: 2322
NVIDIA H800: 2324
NVIDIA H100 80GB HBM3: 2330
NVIDIA H100 PCIe: 2331
NVIDIA H100: 2339
[hopper 9.0 either 535 -]
NVIDIA H100 NVL: 2321
NVIDIA H20: 2329
NVIDIA H20-3e: 232c
NVIDIA H800 NVL: 233a
[hopper 9.0 either 550 -]
NVIDIA H200: 2335
[hopper 9.0 either 580 -]
NVIDIA H20 NVL16: 230e
NVIDIA H200 NVL: 233b
[hopper 9.0 open 535 -]
NVIDIA GH200 120GB or NVIDIA GH200 480GB: 2342
[hopper 9.0 open 580 -]
NVIDIA GH200 144G HBM3e: 2348
[blackwell 10.0 open 580 -]
NVIDIA B200: 2901
NVIDIA GB200: 2941
NVIDIA DRIVE P2021: 29bb
[blackwell 10.0 open 595 -]
NVIDIA B200: 2909
[blackwell 10.3 open 580 -]
NVIDIA B300 SXM6 AC: 3182
NVIDIA GB300: 31c2
[blackwell 10.3 open 595 -]
NVIDIA GB300: 31c3
[blackwell 12.0 open 580 -]
NVIDIA GeForce RTX 5090: 2b85
NVIDIA GeForce RTX 5090 D: 2b87
NVIDIA GeForce RTX 5090 D v2: 2b8c
NVIDIA RTX PRO 6000 Blackwell Workstation Edition: 2bb1
NVIDIA RTX PRO 5000 Blackwell or NVIDIA RTX PRO 5000 72GB Blackwell: 2bb3
NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition: 2bb4
NVIDIA RTX PRO 6000 Blackwell Server Edition: 2bb5
NVIDIA RTX 6000D: 2bb9
NVIDIA GeForce RTX 5080: 2c02
NVIDIA GeForce RTX 5070 Ti: 2c05
NVIDIA GeForce RTX 5090 Laptop GPU: 2c18 2c58
NVIDIA GeForce RTX 5080 Laptop GPU: 2c19 2c59
NVIDIA RTX PRO 4500 Blackwell: 2c31
NVIDIA RTX PRO 4000 Blackwell SFF Edition: 2c33
NVIDIA RTX PRO 4000 Blackwell: 2c34
NVIDIA RTX PRO 5000 Blackwell Generation Laptop GPU: 2c38
NVIDIA RTX PRO 4000 Blackwell Generation Laptop GPU: 2c39
NVIDIA RTX PRO 5000 Blackwell Embedded GPU: 2c77
NVIDIA RTX PRO 4000 Blackwell Embedded GPU: 2c79
NVIDIA GeForce RTX 5060 Ti: 2d04
NVIDIA GeForce RTX 5060: 2d05
NVIDIA GeForce RTX 5070 Laptop GPU: 2d18 2d58
NVIDIA GeForce RTX 5060 Laptop GPU: 2d19 2d59
NVIDIA RTX PRO 2000 Blackwell: 2d30
NVIDIA RTX PRO 2000 Blackwell Generation Laptop GPU: 2d39
NVIDIA RTX PRO 2000 Blackwell Embedded GPU: 2d79
NVIDIA GeForce RTX 5050: 2d83
NVIDIA GeForce RTX 5050 Laptop GPU: 2d98 2dd8
NVIDIA RTX PRO 1000 Blackwell Generation Laptop GPU: 2db8
NVIDIA RTX PRO 500 Blackwell Generation Laptop GPU: 2db9
NVIDIA RTX PRO 500 Blackwell Embedded GPU: 2df9
NVIDIA GeForce RTX 5070: 2f04
NVIDIA GeForce RTX 5070 Ti Laptop GPU: 2f18 2f58
NVIDIA RTX PRO 3000 Blackwell Generation Laptop GPU: 2f38
[blackwell 12.0 open 595 -]
NVIDIA GeForce RTX 5060: 2f06
NVIDIA RTX PRO 4500 Blackwell Server Edition: 2c3a
[blackwell 12.0 open 615 -]
NVIDIA GeForce RTX 5070: 2c09
[blackwell 12.1 open 580 -]
NVIDIA GB10: 2e12
"""


@functools.cache
def table() -> dict[str, Product]:
    """Return every known product by device id in the form of PCI sysfs (``0x1eb8``)."""
    products: dict[str, Product] = {}
    heading: tuple[str, str | None, str, int | None, int | None] = ("", None, EITHER, None, None)
    for line in _TABLE.splitlines():
        if line.startswith("["):
            architecture, capability, flavour, first, last = line.strip("[]").split(" ")
            heading = (architecture, None if capability == "-" else capability, flavour, _branch(first), _branch(last))
            continue
        name, _separator, ids = line.rpartition(": ")
        product = Product(name, *heading)
        for device_id in ids.split():
            products[f"0x{device_id}"] = product
    return products


def product(device_id: object) -> Product | None:
    """Return the product of a PCI device id (any case), or None."""
    return table().get(device_id.lower()) if isinstance(device_id, str) else None


def describe(
    device_id: object, name: str | None = None, architecture: str | None = None, compute_capability: str | None = None
) -> Product | None:
    """Return the product of a device id, else one by NVIDIA's rules for its architecture; None when nothing tells the architecture.

    `architecture` (any case) and `compute_capability` are what a driver says about a GPU that the table does not know. A generation that
    is newer than the rules counts as open only, as every generation since Blackwell.
    """
    known = product(device_id)
    if known is not None:
        return known
    found = _architecture(architecture, compute_capability)
    if found is None:
        return None
    rule = ARCHITECTURES.get(found, Rule(OPEN, None, ()))
    flavour = OPEN if name is not None and _GRACE.match(name) else rule.flavour
    return Product(name or f"unknown GPU of architecture {found}", found, compute_capability, flavour, None, rule.last_branch)


def is_data_center(name: str | None) -> bool:
    """Whether a product name belongs to NVIDIA's data center line."""
    return name is not None and _DATA_CENTER.match(name) is not None


def _architecture(architecture: str | None, compute_capability: str | None) -> str | None:
    named = architecture.lower().split(" ")[0] if architecture else None
    if named in ARCHITECTURES:
        return named
    if compute_capability is None or not _versions.is_dotted(compute_capability, "{1}"):
        return None
    for name, rule in ARCHITECTURES.items():
        if any(compute_capability == prefix or compute_capability.startswith(f"{prefix}.") for prefix in rule.capability_major):
            return name
    return named if int(compute_capability.split(".")[0]) >= 10 else None


def _branch(text: str) -> int | None:
    return None if text == "-" else int(text)
