#!/usr/bin/python
# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: dify_model_provider
short_description: Register the models of a model server in Dify
version_added: 0.1.0
description:
  - Installs the plugin of the provider where Dify lacks it, adds models with their credentials, and makes them those that Dify uses where
    none is named.
  - Dify calls the model server before it keeps credentials, so the server has to run.
  - Dify shows no API key that it has. So that another key is seen, a digest of key and models is kept in O(registration_file) on this host.
author:
  - difyops.gpu authors (@difyops)
options:
  email:
    required: true
  plugin_package:
    description:
      - File on this host with the package of the plugin (C(.difypkg)).
      - When empty, the newest of Dify's marketplace.
    type: path
  default:
    description: Whether the models become those that Dify uses where none is named.
    type: bool
    default: true
  registration_file:
    description:
      - File with the digest of what was registered last, made with mode 0600.
      - When empty, credentials that Dify has stay as they are.
    type: path
extends_documentation_fragment:
  - difyops.gpu.console
  - difyops.gpu.console.models
attributes:
  check_mode:
    support: full
    description: Tells what would be registered.
  diff_mode:
    support: none
    description: Credentials are not shown.
  platform:
    platforms: posix
    support: full
    description: Runs on Linux.
seealso:
  - module: difyops.gpu.dify_setup
  - module: difyops.gpu.dify_verify
"""

EXAMPLES = r"""
- name: Register the models of the image service
  difyops.gpu.dify_model_provider:
    url: http://127.0.0.1
    email: admin@example.org
    password_file: /opt/dify/secrets/dify.env
    models:
      - {model: BAAI/bge-small-en-v1.5, type: text-embedding, endpoint_url: "http://dify-gpu:8000/v1"}
    api_key_file: /opt/dify-gpu/secrets/api_key.env
    registration_file: /opt/dify/model_server/api_key.sha256
"""

RETURN = r"""
plugin:
  description: What happened to the plugin, V(none) or V(installed).
  returned: success
  type: str
  sample: none
models:
  description: Each model with its C(type), and its C(action), V(none), V(added) or V(updated).
  returned: success
  type: list
  elements: dict
  sample: [{model: BAAI/bge-small-en-v1.5, type: text-embedding, action: added}]
defaults:
  description: Types of models whose default was changed.
  returned: success
  type: list
  elements: str
  sample: [text-embedding]
code:
  description: Diagnosis code of a failure.
  returned: failure
  type: str
  sample: DG921
"""

import os
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.difyops.gpu.plugins.module_utils import _console, _console_models, _console_options


def _remember(module: AnsibleModule, path: str, digest: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(digest + "\n")
    module.atomic_move(temporary, path)
    os.chmod(path, 0o600)


def _default(console: _console.Console, model: _console_models.Model) -> tuple[str, str] | None:
    return _console_models.default_of(console, model.type)


def _bring(module: AnsibleModule, console: _console.Console) -> dict[str, Any]:
    options, check = module.params, module.check_mode
    provider, models = options["provider"], _console_options.models_of(options)
    key = _console_options.key_of(options)
    console.login(options["email"], _console_options.password_of(options))
    plugin = _console_models.plugin_of(provider)
    missing = _console_models.installed(console, plugin) is None
    if missing and not check:
        _console_models.install(console, plugin, options["plugin_package"])
    there = {} if missing else _console_models.of_provider(console, provider)
    digest = _console_models.digest(models, provider, key)
    other = bool(options["registration_file"]) and _console_options.registered(options["registration_file"]) != digest
    told = []
    for model in models:
        known = (model.model, model.type) in there
        sick = known and there[model.model, model.type] not in ("active", "None")
        action = "added" if not known else "updated" if other or sick else "none"
        if action != "none" and not check:
            _console_models.save(console, provider, model, key, known)
        told.append({"model": model.model, "type": model.type, "action": action})
    changed = [one for one in models if options["default"] and (missing or _default(console, one) != (provider, one.model))]
    if changed and not check:
        _console_models.set_defaults(console, provider, changed)
    if options["registration_file"] and other and not check:
        _remember(module, options["registration_file"], digest)
    acted = missing or bool(changed) or any(one["action"] != "none" for one in told)
    defaults = [one.type for one in changed]
    return {"changed": acted, "plugin": "installed" if missing else "none", "models": told, "defaults": defaults}


def main() -> None:
    spec = {**_console_options.console_spec(), **_console_options.models_spec()}
    spec["email"]["required"] = True
    spec["plugin_package"] = {"type": "path"}
    spec["default"] = {"type": "bool", "default": True}
    spec["registration_file"] = {"type": "path"}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    try:
        told = _bring(module, _console_options.console_of(module.params))
    except _console.ConsoleError as error:
        module.fail_json(msg=f"{error.code}: {error}", code=error.code)
    except OSError as error:
        module.fail_json(msg=f"{module.params['registration_file']} cannot be written: {error.strerror}.", code=_console.REFUSED)
    module.exit_json(**told)


if __name__ == "__main__":
    main()
