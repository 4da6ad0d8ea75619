# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Options of the modules that use Dify's console API."""

    DOCUMENTATION = r"""
options:
  url:
    description: Address of Dify, as this host reaches it, such as V(http://127.0.0.1).
    type: str
    required: true
  host_header:
    description: Name of the site, where O(url) has another one.
    type: str
  ca_path:
    description: File with the authorities that the site's certificate is checked against, in PEM format.
    type: path
  validate_certs:
    description: Whether the site's certificate is checked.
    type: bool
    default: true
  email:
    description: Address of the account.
    type: str
  password:
    description: Password of the account.
    type: str
  password_file:
    description: File on this host with a line C(NAME=value) that has the password, where O(password) is not given.
    type: path
  password_name:
    description: The C(NAME) in O(password_file).
    type: str
    default: ADMIN_PASSWORD
notes:
  - Dify's console API is internal and changes between releases. What is known of it was read in Dify 1.12 to 1.17. An answer of another
    shape ends in one sentence with DG920 that says what was asked, expected and seen.
"""

    MODELS = r"""
options:
  provider:
    description: Provider in Dify, as C(author/plugin/provider).
    type: str
    default: langgenius/openai_api_compatible/openai_api_compatible
  models:
    description: Models of the model server.
    type: list
    elements: dict
    default: []
    suboptions:
      model:
        description: Name under which the server serves it.
        type: str
        required: true
      type:
        description: Dify's word for what it does.
        type: str
        choices: [text-embedding, rerank]
        required: true
      endpoint_url:
        description: Address of the server as Dify's plugin daemon reaches it, with C(/v1).
        type: str
        required: true
      credentials:
        description: Further credentials of the provider, all of them text. Nothing secret.
        type: dict
        default: {}
  api_key:
    description: API key of the model server.
    type: str
  api_key_file:
    description: File on this host with a line C(NAME=value) that has the key, where O(api_key) is not given.
    type: path
  api_key_name:
    description: The C(NAME) in O(api_key_file).
    type: str
    default: API_KEY
"""
