# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs where, worked out by hand from NVIDIA's and PyTorch's tables; test_plan_triples.py holds the selector to it.

Nothing here is computed, and nothing comes from the code under test: compute capabilities are from NVIDIA's CUDA GPU pages, floors and
toolkit drivers from the CUDA 13.2 release notes (tables 2 and 3), forward compatibility from the CUDA Compatibility guide of September
2026, code lists of wheels from PyTorch. To add a row: reason it out first, then run.

Outcomes: full, minor, forward: it runs, by that way. old: the driver carries the CUDA in no way. forward-only: it would need forward
compatibility, which is not allowed or not for this GPU. no-code: the driver carries it, and the image has nothing for this GPU. min: the
catalog's own minimum. unknown: nobody knows the GPU's compute capability. After a variant, `allowed` says that the policy allows forward
compatibility.
"""

from __future__ import annotations

# name -> (compute capability, of the data center line)
GPUS = {
    "K80": ("3.7", True),
    "M60": ("5.2", True),
    "GTX 750 Ti": ("5.0", False),
    "P4": ("6.1", True),
    "P100": ("6.0", True),
    "GTX 1080": ("6.1", False),
    "V100": ("7.0", True),
    "Xavier": ("7.2", False),
    "T4": ("7.5", True),
    "RTX 2080": ("7.5", False),
    "A30": ("8.0", True),
    "A100": ("8.0", True),
    "A10": ("8.6", True),
    "RTX 3090": ("8.6", False),
    "Orin": ("8.7", False),
    "L4": ("8.9", True),
    "RTX 4090": ("8.9", False),
    "H100": ("9.0", True),
    "GH200": ("9.0", True),
    "B200": ("10.0", True),
    "B300": ("10.3", True),
    "Thor": ("11.0", False),
    "RTX 5090": ("12.0", False),
    "GB10": ("12.1", False),
    "new card": (None, True),
}

_OLD_WHEEL = ["5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "9.0"]

# Images of a site beside the default variants, one for each rule that those do not show.
IMAGES = {
    "kepler11.7": {"cuda": "11.7", "sm": ["3.7", "5.0", "6.0", "7.0", "7.5", "8.0", "8.6"]},
    "site12.0": {"cuda": "12.0", "sm": _OLD_WHEEL},
    "site12.2": {"cuda": "12.2", "sm": _OLD_WHEEL},
    "site12.3": {"cuda": "12.3", "sm": _OLD_WHEEL},
    "site12.5": {"cuda": "12.5", "sm": _OLD_WHEEL},
    "site12.9": {"cuda": "12.9", "sm": ["7.0", "7.5", "8.0", "8.6", "9.0", "10.0", "12.0"], "ptx": "12.0"},
    "site13.1": {"cuda": "13.1", "sm": ["7.5", "8.0", "8.6", "9.0", "10.0", "12.0"]},
    "volta12.8": {"cuda": "12.8", "sm": ["7.0", "7.5", "8.0", "8.6", "9.0", "10.0", "12.0"]},
    "only8.6": {"cuda": "12.4", "sm": ["8.6"]},
    "only8.0": {"cuda": "12.4", "sm": ["8.0"]},
    "ptx12.4": {"cuda": "12.4", "sm": [], "ptx": "8.0"},
    "ptx12.8": {"cuda": "12.8", "sm": [], "ptx": "8.0"},
    "hopper+ptx": {"cuda": "12.6", "sm": ["9.0"], "ptx": "9.0"},
    "hopper-a": {"cuda": "12.6", "sm": ["9.0a"]},
    "hopper-a-ptx": {"cuda": "12.6", "sm": [], "ptx": "9.0a"},
    "blackwell-a": {"cuda": "12.9", "sm": ["10.0a"]},
    "blackwell-f": {"cuda": "12.9", "sm": ["10.0f"]},
    "ultra-f": {"cuda": "12.9", "sm": ["10.3f"]},
    "desktop-f": {"cuda": "12.9", "sm": ["12.0f"]},
    "orin12.2": {"cuda": "12.2", "sm": ["8.7"]},
    "orin13.2": {"cuda": "13.2", "sm": ["8.7"]},
    "compat12.1": {"cuda": "12.1", "sm": _OLD_WHEEL, "features": ["cuda_compat"]},
    "compat12.2": {"cuda": "12.2", "sm": _OLD_WHEEL, "features": ["cuda_compat"]},
    "compat12.8": {"cuda": "12.8", "sm": ["7.5", "8.0", "8.6", "9.0"], "features": ["cuda_compat"]},
    "compat13.0": {"cuda": "13.0", "sm": ["8.0", "8.6", "9.0"], "features": ["cuda_compat"]},
    "compat13.2": {"cuda": "13.2", "sm": ["8.0", "8.6", "9.0"], "features": ["cuda_compat"]},
    "compat13.4": {"cuda": "13.4", "sm": ["8.0", "8.6", "9.0"], "features": ["cuda_compat"]},
    "compat-ptx": {"cuda": "13.0", "sm": [], "ptx": "8.0", "features": ["cuda_compat"]},
    "pinned12.2": {"cuda": "12.2", "sm": _OLD_WHEEL, "min_driver": "535.104.05"},
}

# driver | GPUs of the host | variant | outcome | why
TABLE = """
# --- the article's table: P4 / T4, "11.8, driver >= 450.80.02" ---
450.80.02  | P4       | cuda11.8   | minor   | release notes: 11.x from 450.80.02; 6.1 runs the 6.0 code
450.80.01  | P4       | cuda11.8   | old     | one below the floor of 11
450.80.02  | T4       | cuda11.8   | minor   | floor of 11; 7.5 is in the wheel
450.51.06  | T4       | cuda11.8   | old     | the driver of CUDA 11.0.3 itself is below the floor of minor-version compatibility
470.82.01  | T4       | cuda11.8   | minor   | R470 is CUDA 11.4
520.61.04  | T4       | cuda11.8   | minor   | one below the driver of 11.8
520.61.05  | T4       | cuda11.8   | full    | the driver of 11.8
520.61.05  | P4       | cuda11.8   | full    | the driver of 11.8
525.60.13  | P4       | cuda11.8   | full    | CUDA 12.0 is a newer major: backward compatible
580.95.05  | P4       | cuda11.8   | full    | newer major
580.95.05  | P4       | cuda12.6   | full    | newer major; the wheel of cu126 has 6.0
535.247.01 | P4       | cuda12.6   | minor   | 12.x from 525.60.13; 6.0 code
580.95.05  | P4       | cuda12.8   | no-code | PyTorch 2.11 for cu128 begins at 7.5
580.95.05  | P4       | cuda13.0   | no-code | CUDA 13 dropped Pascal; PTX 12.0 is above 6.1
580.95.05  | T4       | cuda12.8   | full    | newer major; 7.5 is in the wheel
580.95.05  | T4       | cuda13.0   | full    | 580.65.06 is the driver of 13.0
580.95.05  | T4       | cuda13.2   | minor   | 13.x from 580.65.06
# --- the article's table: A10 / A30, "11.8 or 12.1, update the driver to 525" ---
470.182.03 | A30      | cuda11.8   | minor   | floor of 11
470.182.03 | A10      | cuda12.1   | old     | 12.x from 525.60.13
525.60.12  | A10      | cuda12.1   | old     | one below the floor of 12
525.60.13  | A10      | cuda12.1   | minor   | the floor of 12
525.60.13  | A30      | site12.2   | minor   | the floor of 12 is enough for 12.2 as well
525.60.13  | A10      | cuda12.6   | minor   | and for 12.6
525.60.13  | A30      | cuda12.8   | minor   | and for 12.8
530.30.01  | A10      | cuda12.1   | minor   | one below the driver of 12.1
530.30.02  | A10      | cuda12.1   | full    | the driver of 12.1
530.30.02  | A30      | cuda12.1   | full    | the driver of 12.1; 8.0 is in the wheel
535.54.03  | A10      | cuda12.1   | full    | newer than the driver of 12.1
535.54.03  | A30      | cuda12.4   | minor   | R535 is CUDA 12.2
550.54.14  | A10      | only8.6    | full    | 8.6 code on an 8.6 part
550.54.14  | A30      | only8.6    | no-code | 8.6 code is above 8.0
550.54.14  | A10      | only8.0    | full    | 8.0 code on a later minor
550.54.14  | A30      | only8.0    | full    | its own code
550.54.14  | A10+A30  | only8.6    | no-code | one image for all GPUs of a host: the A30 has nothing
550.54.14  | A10+A30  | only8.0    | full    | 8.0 code serves both
# --- the article's table: A100, "11.8 to 12.3" ---
450.80.02  | A100     | cuda11.8   | minor   | floor of 11; 8.0 in the wheel
525.85.12  | A100     | site12.3   | minor   | floor of 12
545.23.05  | A100     | site12.3   | minor   | one below the driver of 12.3
545.23.06  | A100     | site12.3   | full    | the driver of 12.3
545.23.08  | A100     | cuda12.4   | minor   | R545 is CUDA 12.3
550.54.13  | A100     | cuda12.4   | minor   | one below the driver of 12.4
550.54.14  | A100     | cuda12.4   | full    | the driver of 12.4
555.42.02  | A100     | cuda12.4   | full    | newer than the driver of 12.4
555.42.01  | A100     | site12.5   | minor   | one below the driver of 12.5
555.42.02  | A100     | site12.5   | full    | the driver of 12.5
560.28.02  | A100     | cuda12.6   | minor   | one below the driver of 12.6
560.28.03  | A100     | cuda12.6   | full    | no GPU sets an upper limit: 12.6 is past the article's 12.3
580.65.06  | A100     | cuda13.0   | full    | the driver of 13.0
580.65.06  | A100     | cuda13.2   | minor   | the floor of 13
595.45.03  | A100     | cuda13.2   | minor   | one below the driver of 13.2
595.45.04  | A100     | cuda13.2   | full    | the driver of 13.2
# --- the article's table: H100, "12.2 and driver >= 535" ---
520.61.05  | H100     | cuda11.8   | full    | 11.8 has code for 9.0: neither 12.2 nor 535 is needed
525.60.13  | H100     | cuda11.8   | full    | newer major
525.60.13  | H100     | site12.0   | full    | 525.60.13 is the driver of 12.0
525.60.13  | H100     | site12.2   | minor   | floor of 12
525.60.13  | H100     | cuda12.6   | minor   | floor of 12; 9.0 in the wheel
535.54.02  | H100     | site12.2   | minor   | one below the driver of 12.2
535.54.03  | H100     | site12.2   | full    | the driver of 12.2
535.54.03  | H100     | cuda12.8   | minor   | R535 is CUDA 12.2
580.95.05  | H100     | cuda13.0   | full    | newer than the driver of 13.0
570.211.01 | H100     | cuda13.0   | old     | 13.x from 580.65.06
# --- its worked examples ---
470.182.03 | RTX 3090 | site12.2   | old     | driver 470 cannot load a 12.2 image: right
470.182.03 | RTX 3090 | cuda11.8   | minor   | R470 is CUDA 11.4, and runs 11.8 by minor-version compatibility
515.105.01 | T4       | site12.2   | old     | CentOS 7 with 515: below the floor of 12
515.105.01 | T4       | cuda12.1   | old     | the article recommends 12.1 there, which cannot run either
515.105.01 | T4       | site12.0   | old     | nor can 12.0, which it says 515 supports
515.105.01 | T4       | cuda11.8   | minor   | what is right for those hosts
515.105.01 | A100     | cuda11.8   | minor   | the same on another card
515.105.01 | T4       | compat12.1 allowed | old | no cuda-compat 12.1 in the guide, for any branch
515.105.01 | A100     | compat12.2 allowed | old | the guide lists cuda-compat 12.2 and no branch for it
515.105.01 | A100     | compat12.8 allowed | old | cuda-compat 12.8 serves 535 only
# --- drivers of one release, from below the floor to beyond: 12.8 on an A10 ---
525.60.12  | A10      | cuda12.8   | old     | below the floor of 12
565.57.01  | A10      | cuda12.8   | minor   | R565 is CUDA 12.7
570.25     | A10      | cuda12.8   | minor   | one below the driver of 12.8
570.26     | A10      | cuda12.8   | full    | the driver of 12.8, with two places
570.86.10  | A10      | cuda12.8   | full    | 86 is more than 26
570.124.06 | A10      | cuda12.8   | full    | 124 is more than 26, though 1 comes before 2 as text
570.211.01 | A10      | cuda12.8   | full    | and so is 211
575.51.03  | A10      | cuda12.8   | full    | R575 is CUDA 12.9
575.51.02  | A10      | site12.9   | minor   | one below the driver of 12.9
575.51.03  | A10      | site12.9   | full    | the driver of 12.9
575.57.08  | A10      | cuda13.0   | old     | 13.x from 580.65.06
# --- and of CUDA 13 ---
580.65.05  | A10      | cuda13.0   | old     | one below the floor of 13, though of its branch
580.65.05  | A10      | cuda12.8   | full    | R580 is of a newer major than 12.8
580.65.06  | A10      | cuda13.0   | full    | floor and driver of 13.0 are the same
580.178.04 | A10      | cuda13.0   | full    | the newest of 580
580.178.04 | A10      | cuda13.2   | minor   | R580 is CUDA 13.0
590.44.01  | A10      | site13.1   | full    | the driver of 13.1
590.44.00  | A10      | site13.1   | minor   | one below
590.48.01  | A10      | cuda13.2   | minor   | R590 is CUDA 13.1
595.71.05  | A10      | cuda13.2   | full    | an update of 13.2 brought a newer driver; 13.2 itself asks for 595.45.04
610.43.02  | A10      | cuda13.2   | full    | R610 is CUDA 13.3
615.71.09  | A10      | cuda13.2   | full    | R615 is CUDA 13.4
615.71.09  | A10      | cuda11.8   | full    | newer major, two of them
620.10.01  | H100     | cuda13.0   | full    | R620 is CUDA 13.5
# --- Kepler, Maxwell, Pascal, Volta ---
470.256.02 | K80      | kepler11.7 | minor   | 11.7 still compiles for 3.7; R470 is the last branch that drives it
470.256.02 | K80      | cuda11.8   | no-code | PyTorch 2.7 for cu118 begins at 5.0
470.256.02 | M60      | cuda11.8   | minor   | 5.2 runs the 5.0 code
580.95.05  | M60      | cuda12.6   | full    | the last wheel with Maxwell
580.95.05  | M60      | cuda12.8   | no-code | begins at 7.5
580.95.05  | GTX 750 Ti | cuda12.6 | full    | 5.0 is in the wheel
580.95.05  | GTX 750 Ti | cuda13.0 | no-code | CUDA 13 dropped Maxwell; PTX 12.0 is above 5.0
535.247.01 | P100     | cuda12.4   | minor   | R535 is CUDA 12.2; 6.0 in the wheel
550.163.01 | GTX 1080 | cuda12.4   | full    | newer than the driver of 12.4
550.163.01 | GTX 1080 | cuda12.6   | minor   | R550 is CUDA 12.4
580.95.05  | V100     | cuda12.6   | full    | newer major; 7.0 in the wheel
580.95.05  | V100     | cuda12.8   | no-code | PyTorch 2.11 for cu128 dropped 7.0
580.95.05  | V100     | volta12.8  | full    | PyTorch 2.8 to 2.10 for cu128 still had it
580.95.05  | V100     | cuda13.0   | no-code | no 7.0 in CUDA 13; 12.0+PTX does nothing for a V100
580.95.05  | V100     | cuda13.2   | no-code | no 7.0, no PTX
570.124.06 | V100     | site12.9   | minor   | R570 is CUDA 12.8; 7.0 is in the wheels of cu129
450.80.02  | V100     | cuda11.8   | minor   | floor of 11
# --- Ada ---
525.60.13  | L4       | cuda11.8   | full    | newer major; 8.9 runs the 8.6 code
525.60.13  | RTX 4090 | cuda12.1   | minor   | floor of 12
535.247.01 | L4       | cuda12.6   | minor   | floor of 12
560.28.03  | RTX 4090 | cuda12.6   | full    | the driver of 12.6
580.95.05  | L4       | cuda13.2   | minor   | floor of 13
550.54.14  | L4       | only8.6    | full    | 8.6 code on 8.9
550.54.14  | H100     | only8.6    | no-code | another major
550.54.14  | T4       | only8.0    | no-code | another major
535.247.01 | RTX 2080 | cuda12.6   | minor   | 7.5 in the wheel; GeForce or not is nothing to minor-version compatibility
# --- Blackwell ---
570.124.06 | B200     | cuda12.8   | full    | 12.8 is the first with 10.0
570.124.06 | B200     | cuda12.6   | no-code | begins and ends before 10.0, no PTX
570.124.06 | B200     | cuda11.8   | no-code | the same
580.95.05  | B200     | cuda12.4   | no-code | the same
580.95.05  | B200     | cuda13.0   | full    | 10.0 in the wheel
580.95.05  | B300     | cuda12.8   | full    | 10.3 runs the 10.0 code
580.95.05  | B300     | cuda13.2   | minor   | floor of 13; 10.0 code
570.124.06 | RTX 5090 | cuda12.8   | full    | 12.0 in the wheel
570.124.06 | RTX 5090 | cuda12.6   | no-code | no 12.0, no PTX
580.95.05  | RTX 5090 | cuda13.0   | full    | 12.0 in the wheel
580.95.05  | GB10     | cuda13.0   | full    | 12.1 runs the 12.0 code
580.95.05  | GB10     | cuda12.6   | no-code | no 12.x code
595.45.04  | GB10     | cuda13.2   | full    | 12.0 code
580.95.05  | B200     | site12.9   | full    | newer major; 10.0 in the wheel
# --- several GPUs in a host: every one must be served ---
580.95.05  | V100+A100 | cuda12.6  | full    | both are in the wheel
580.95.05  | V100+A100 | cuda12.8  | no-code | nothing for the V100
580.95.05  | V100+B200 | cuda12.6  | no-code | nothing for the B200
580.95.05  | V100+B200 | cuda13.0  | no-code | nothing for the V100
580.95.05  | V100+B200 | volta12.8 | full    | the image would serve both; that no driver drives both is another table
580.95.05  | T4+H100   | cuda13.0  | full    | both in the wheel
535.247.01 | T4+A10    | cuda12.6  | minor   | both in the wheel
# --- PTX: upwards in compute capability, and never from a toolkit newer than the driver's CUDA ---
550.54.14  | A100     | ptx12.4    | full    | PTX 8.0 of 12.4 on a driver of 12.4
550.54.14  | H100     | ptx12.4    | full    | PTX is compiled for later architectures
535.247.01 | H100     | ptx12.4    | no-code | minor carries 12.4, but its PTX is newer than the driver's 12.2: error 222
535.247.01 | A100     | ptx12.4    | no-code | the same for the architecture it was written for
550.54.14  | L4       | ptx12.4    | full    | 8.0 is not above 8.9
550.54.14  | T4       | ptx12.4    | no-code | 8.0 is above 7.5
550.54.14  | V100     | ptx12.4    | no-code | 8.0 is above 7.0
570.26     | B200     | ptx12.4    | full    | compiled for 10.0
580.95.05  | RTX 5090 | ptx12.4    | full    | compiled for 12.0
565.57.01  | A10      | ptx12.8    | no-code | R565 is CUDA 12.7: the PTX is newer
570.26     | A10      | ptx12.8    | full    | R570 is CUDA 12.8
580.95.05  | B200     | hopper+ptx | full    | no 10.0 code, but PTX 9.0
580.95.05  | A100     | hopper+ptx | no-code | 9.0 is above 8.0, code and PTX
550.54.15  | H100     | hopper+ptx | minor   | the machine code runs; the PTX is not asked for
580.95.05  | Thor     | cuda13.0   | no-code | no 11.0 code; PTX 12.0 is above 11.0
# --- targets with a suffix: a for one architecture only, f for a family ---
560.28.03  | H100     | hopper-a   | full    | 9.0a runs on 9.0
560.28.03  | GH200    | hopper-a   | full    | which a GH200 is too
580.95.05  | B200     | hopper-a   | no-code | and on nothing else
560.28.03  | A100     | hopper-a   | no-code | nor on older ones
560.28.03  | H100     | hopper-a-ptx | full  | its PTX is compiled for 9.0
580.95.05  | B200     | hopper-a-ptx | no-code | and for nothing later
575.51.03  | B200     | blackwell-a | full   | 10.0a on 10.0
580.95.05  | B300     | blackwell-a | no-code | not on 10.3
575.51.03  | B200     | blackwell-f | full   | its own
580.95.05  | B300     | blackwell-f | full   | the family goes on within the major
580.95.05  | RTX 5090 | blackwell-f | no-code | 12.0 is another family
580.95.05  | B200     | ultra-f    | no-code | 10.3f begins at 10.3
580.95.05  | B300     | ultra-f    | full    | its own
580.95.05  | GB10     | desktop-f  | full    | 12.1 is of the family of 12.0
580.95.05  | RTX 5090 | desktop-f  | full    | its own
580.95.05  | B200     | desktop-f  | no-code | another major
# --- Jetson stands apart before CUDA 13.2 ---
535.247.01 | Orin     | cuda12.6   | no-code | 8.6 code does not run on the Jetson part 8.7
535.247.01 | Orin     | orin12.2   | full    | its own code
535.247.01 | L4       | orin12.2   | no-code | nor does Jetson code run on its cousin 8.9
535.247.01 | A10      | orin12.2   | no-code | 8.7 is above 8.6, and Jetson
595.45.04  | L4       | orin13.2   | full    | from 13.2 on they share: 8.7 code on 8.9
595.45.04  | Orin     | cuda13.2   | full    | and 8.6 code on 8.7
595.45.04  | A10      | orin13.2   | no-code | 8.7 stays above 8.6
535.247.01 | Xavier   | cuda12.4   | no-code | 7.0 code does not run on the Jetson part 7.2
# --- forward compatibility: the package, a data center GPU, a listed branch, and consent ---
535.247.01 | A10      | compat13.0 allowed | forward | cuda-compat 13.0 serves 535
535.247.01 | A10      | compat13.0 | forward-only | nobody allowed it
535.247.01 | RTX 3090 | compat13.0 allowed | forward-only | no data center GPU
535.247.01 | A10+RTX 3090 | compat13.0 allowed | forward-only | one of them is none
570.211.01 | A10      | compat13.0 allowed | forward | it serves 570
550.163.01 | A10      | compat13.0 allowed | old | it does not serve 550
575.57.08  | A10      | compat13.0 allowed | old | nor 575
525.147.05 | A10      | compat13.0 allowed | old | nor 525
470.256.02 | A100     | compat13.0 allowed | old | nor 470
580.65.06  | A10      | compat13.0 allowed | full | no need of it
580.65.05  | A10      | compat13.0 allowed | old | below the floor, and 580 is not served by 13.0
535.247.01 | A10      | cuda13.0 allowed | old | the default variant carries no package
535.247.01 | A10      | compat13.2 allowed | forward | 13.2 serves 535
570.211.01 | H100     | compat13.2 allowed | forward | and 570
580.95.05  | H100     | compat13.2 allowed | minor | 580 is at the floor of 13: no need of the package
550.163.01 | H100     | compat13.2 allowed | old | 550 is not served
535.247.01 | H100     | compat12.8 allowed | minor | 535 is above the floor of 12
535.247.01 | H100     | compat13.4 allowed | forward | 13.4 serves 535
610.43.02  | H100     | compat13.4 allowed | minor | above the floor of 13
535.247.01 | V100     | compat13.0 allowed | no-code | the driver part is solved, the code is not
535.247.01 | A10      | compat-ptx allowed | forward | the package brings a compiler as new as the PTX
535.247.01 | T4       | compat-ptx allowed | no-code | PTX 8.0 is above 7.5
# --- a stricter minimum of the catalog, and what nobody knows ---
535.86.09  | A10      | pinned12.2 | min     | the catalog says 535.104.05
535.104.05 | A10      | pinned12.2 | full    | which is newer than the driver of 12.2
545.23.06  | A10      | pinned12.2 | full    | newer
525.147.05 | A10      | pinned12.2 | min     | minor would carry it, the catalog does not want it
580.95.05  | new card | cuda12.6   | unknown | no compute capability, no judgement
440.100    | T4       | cuda11.8   | old     | older than every table
"""
