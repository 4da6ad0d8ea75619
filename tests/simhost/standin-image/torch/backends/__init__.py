# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Switches that programs set; numpy always computes in full precision."""

import types

from torch import version

cuda = types.SimpleNamespace(
    matmul=types.SimpleNamespace(allow_tf32=False, allow_fp16_reduced_precision_reduction=True), is_built=lambda: version.cuda is not None
)
# There is no cuDNN here, which PyTorch says by None.
cudnn = types.SimpleNamespace(
    allow_tf32=True, enabled=True, benchmark=False, deterministic=False, is_available=lambda: False, version=lambda: None
)
