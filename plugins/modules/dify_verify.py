#!/usr/bin/python
# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: dify_verify
short_description: Prove that a deployed Dify works
version_added: 0.1.0
description:
  - Looks at a Dify from its containers to its model server, link by link, and says of the first broken one what was expected, what was
    seen and what to do.
  - Nothing is changed. A link that is broken is a verdict, not a failure of the module.
author:
  - difyops.gpu authors (@difyops)
options:
  project:
    description: Compose project.
    type: str
    default: dify
  version:
    description: Release whose API is to answer. When empty, any.
    type: str
  services:
    description:
      - Services with C(name), C(image) and C(one_shot), as the plan of M(difyops.gpu.dify_plan) has them.
      - When empty, Dify runs elsewhere.
    type: list
    elements: dict
    default: []
  forbidden:
    description: SHA-256 digests of values that no variable of this name may have in a container.
    type: dict
    default: {}
  registration_file:
    description:
      - What M(difyops.gpu.dify_model_provider) wrote down of its last registration.
      - Where it tells of another API key or other settings, the link C(provider) is broken. Dify shows nobody the key it has.
    type: path
  tls_certificate:
    description: Certificate of the site, on the host. When given, what O(tls_port) serves is compared with it.
    type: path
  tls_address:
    description: Address on the host where the proxy listens.
    type: str
    default: 127.0.0.1
  tls_port:
    description: Port on which the proxy speaks TLS.
    type: int
    default: 443
extends_documentation_fragment:
  - difyops.gpu.console
  - difyops.gpu.console.models
  - difyops.gpu.attributes.observes
seealso:
  - module: difyops.gpu.dify_model_provider
  - module: difyops.gpu.gpu_verify
"""

EXAMPLES = r"""
- name: See whether Dify answers
  difyops.gpu.dify_verify:
    url: http://127.0.0.1
    host_header: dify.example.org

- name: See besides whether the proxy has read the renewed certificate
  difyops.gpu.dify_verify:
    url: http://127.0.0.1
    host_header: dify.example.org
    tls_certificate: /opt/dify/current/nginx/ssl/dify.crt
"""

RETURN = r"""
ansible_facts:
  description: Facts to add to C(ansible_facts).
  returned: always
  type: dict
  contains:
    dify_verdict:
      description:
        - C(overall) is V(proven), V(failed) or V(unproven); C(summary), C(code) and C(remedy) tell of the first broken link.
        - C(links) are containers, web, tls (only with O(tls_certificate)), api, secrets, setup, provider, embedding and rerank, each with
          C(status), C(expected), C(seen), C(code) and C(remedy).
      returned: always
      type: dict
      sample: {schema: 1, overall: proven, summary: "1.17.1 answers, and 2 models compute", code: null, remedy: null, links: []}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.difyops.gpu.plugins.module_utils import _console_options, _dify_verify, _tls


def _endpoint(options: dict[str, Any]) -> _tls.Endpoint | None:
    if not options["tls_certificate"]:
        return None
    name = str(options["host_header"] or "").partition(":")[0] or options["tls_address"]
    return _tls.Endpoint(options["tls_address"], options["tls_port"], name, options["tls_certificate"])


def main() -> None:
    spec = {**_console_options.console_spec(), **_console_options.models_spec()}
    spec["project"] = {"type": "str", "default": "dify"}
    spec["version"] = {"type": "str"}
    spec["services"] = {"type": "list", "elements": "dict", "default": []}
    spec["registration_file"] = {"type": "path"}
    spec["forbidden"] = {"type": "dict", "default": {}}
    spec["tls_certificate"] = {"type": "path"}
    spec["tls_address"] = {"type": "str", "default": "127.0.0.1"}
    spec["tls_port"] = {"type": "int", "default": 443}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    options = module.params
    wanted = _dify_verify.Wanted(
        project=options["project"],
        services=options["services"],
        version=options["version"] or None,
        forbidden=options["forbidden"],
        email=options["email"] or "",
        password=lambda: _console_options.password_of(options),
        provider=options["provider"],
        models=_console_options.models_of(options),
        key=lambda: _console_options.key_of(options),
        registered=_console_options.registered(options["registration_file"]),
        tls=_endpoint(options),
    )
    verdict = _dify_verify.prove(wanted, _console_options.console_of(options))
    module.exit_json(changed=False, ansible_facts={"dify_verdict": verdict})


if __name__ == "__main__":
    main()
