# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `make test` leaves out to be shorter, and `make test-all` does: what other tests see in another way, or on another host."""

from __future__ import annotations

import os

import pytest

ALL = bool(os.environ.get("DIFYOPS_ALL"))
thorough = pytest.mark.skipif(not ALL, reason="only with DIFYOPS_ALL=1")
