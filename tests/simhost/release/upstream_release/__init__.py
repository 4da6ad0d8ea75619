# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes archives in the shape of Dify's source archives, for tests.

Names of services, images, settings and the public default secrets are upstream's; the texts are not, and the images that the
archives name are the stand-ins of ``tests/simhost/dify-standin``. The same version is always the same archive, to the byte.
"""

from __future__ import annotations

from upstream_release._archive import BROKEN, RELEASES, broken, image_names, make, name_of

__all__ = ["BROKEN", "RELEASES", "broken", "image_names", "make", "name_of"]
