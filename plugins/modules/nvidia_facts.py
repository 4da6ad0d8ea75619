#!/usr/bin/python
# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

# What stands here and is imported here travels to every host, so the documentation is in nvidia_facts.yml, and the code
# comes as the one file that tests/tools/amalgamate.py makes of _nvidia.py and all that it imports.
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.difyops.gpu.plugins.module_utils._nvidia_facts import nvidia_gather


def main() -> None:
    module = AnsibleModule(argument_spec={"timeout": {"type": "int", "default": 30}}, supports_check_mode=True)
    if module.params["timeout"] < 1:
        module.fail_json(msg=f"timeout has to be at least 1 second, not {module.params['timeout']}.")
    facts = nvidia_gather(root="/", timeout_s=module.params["timeout"])
    module.exit_json(changed=False, ansible_facts={"nvidia": facts})


if __name__ == "__main__":
    main()
