#!/usr/bin/python
# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done on the controller, by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gpu_report
short_description: Print the plan, the result or an audit of all hosts
version_added: 0.1.0
author:
  - difyops.gpu authors (@difyops)
description:
  - Prints on the controller what is planned for all hosts, or what came of them, from facts that are there already.
    No host is connected to.
  - Runs once for all hosts of the play.
  - Hosts with the same plan share one block, and hosts with the same trouble share one explanation.
  - A host of which nothing is known, because it did not answer, is reported as V(unreachable). One that left the play
    later, without an outcome, is reported as V(failed), since Ansible does not tell whether its connection was lost.
  - In check mode the report says that nothing was applied.
options:
  show:
    description:
      - V(plan) prints what would change on each host and why, with the image variants that were rejected. The lines of the
        files are shown by the tasks that write them, in diff mode.
      - V(fleet) prints what M(difyops.gpu.gpu_plan) with scope V(fleet) decided over many hosts.
      - V(verdict) prints a table with one line for each host, and what to do where something is wrong.
      - V(audit) is for a run that deploys nothing. It prints versions, plan and result of each host, what a deployment would
        change, all warnings with their codes, and what is not the same on all hosts.
      - V(provision) prints what the roles P(difyops.gpu.nvidia_driver#role), P(difyops.gpu.container_engine#role) and
        P(difyops.gpu.nvidia_container_toolkit#role) would do on each host, in full.
      - V(provision_outcome) prints a table of what became of driver, engine and toolkit.
      - V(app) prints what the role P(difyops.gpu.dify#role) would do on each host, from action and versions to images, containers,
        backup and downtime. V(app_outcome) prints a table of what became of it.
      - V(upgrade) prints who is upgraded in which wave, and who is left alone and why. V(upgrade_outcome) prints a table of what became
        of it, with times.
    type: str
    choices: [plan, fleet, verdict, audit, provision, provision_outcome, app, app_outcome, upgrade, upgrade_outcome]
    required: true
  hosts:
    description: Hosts to report. When left out, all hosts of the play, also those that left it.
    type: list
    elements: str
  path:
    description:
      - File on the controller to write the records to, one line of JSON for each host. Its directory must exist.
      - The file is replaced as a whole. It is output and no state of a host, so it is written in check mode as well, with
        C(check) set to true in each record, and does not count as a change.
    type: path
attributes:
  action:
    support: full
    description: Has an action plugin, which does all the work on the controller.
  async:
    support: none
    description: Does not run in the background.
  bypass_host_loop:
    support: full
    description: Runs once for all hosts of the play. The free strategy does not support that.
  check_mode:
    support: full
    description: Changes nothing on any host in any mode.
  diff_mode:
    support: N/A
    description: Changes nothing, so there is no difference to show.
  platform:
    platforms: posix
    support: full
    description: Runs on the controller.
notes:
  - Reads C(ansible_facts['nvidia']), C(ansible_facts['dify']), C(ansible_facts['gpu_plan']) and
    C(ansible_facts['gpu_verdict']) of each host, and its variable C(dify_outcome).
  - C(dify_outcome) is a dictionary with C(status) and C(message), a sentence. A playbook sets it where it rescues a host
    from an error.
  - Its status is V(failed); V(restored), the service that was proven last runs again; V(stopped), there was none to go
    back to; V(restore_failed), going back failed too and the message says why; or V(unreachable). All but the last make
    the result V(failed).
  - An audit also reads C(ansible_facts['gpu_fleet']), the decision over all hosts, and the host variable
    C(gpu_audit_verdicts), a list of the verdicts on containers that are not the service's. A host comes out as the worst of
    its verdicts.
  - V(provision) reads C(ansible_facts['gpu_driver']), C(ansible_facts['gpu_engine']) and C(ansible_facts['gpu_toolkit']) of each host,
    and V(provision_outcome) its variable C(provision_outcome) as well, a dictionary with C(driver), C(engine) and C(toolkit). Each is
    null or a dictionary with C(status), C(before), C(after), C(message) and C(code). The status is V(unchanged), V(changed),
    V(reboot_required), V(blocked), V(failed) or V(unreachable).
  - V(upgrade) reads C(ansible_facts['gpu_upgrade']), and the host variable C(upgrade_outcome) that playbook C(upgrade_drivers) sets.
  - Runs once by itself. Give the task C(run_once=true) as well where all hosts of the play need the registered result.
seealso:
  - module: difyops.gpu.gpu_plan
  - module: difyops.gpu.gpu_verify
"""

EXAMPLES = r"""
- name: Print the plan
  difyops.gpu.gpu_report:
    show: plan

- name: Print the result and keep it
  difyops.gpu.gpu_report:
    show: verdict
    hosts: "{{ groups['dify_gpu'] }}"
    path: "{{ playbook_dir }}/report.jsonl"
  register: report
  run_once: true

- name: Print an audit
  difyops.gpu.gpu_report:
    show: audit
    hosts: "{{ groups['all'] }}"
  run_once: true

- name: Print what becomes of drivers, engines and toolkits
  difyops.gpu.gpu_report:
    show: provision

- name: Fail when a host needs somebody
  ansible.builtin.assert:
    that: report.failed_hosts | length == 0
    fail_msg: "Look after {{ report.failed_hosts | join(', ') }}."
"""

RETURN = r"""
records:
  description:
    - One record for each host, in the order of the hosts. Each has every key always.
    - Those of V(provision) and V(provision_outcome) have C(schema), C(time), C(host), C(check), C(result), C(ok), C(message), C(code),
      C(remedy), C(before), C(after), C(parts), C(plan) and C(warnings); those of the others all but C(before), C(after) and C(parts).
    - Those of V(upgrade) and V(upgrade_outcome) are described in docs/contracts.md.
  returned: always
  type: list
  elements: dict
  contains:
    schema:
      description: Version of the record's form.
      returned: always
      type: int
      sample: 1
    time:
      description: When the report was made.
      returned: always
      type: str
      sample: "2026-11-22T11:27:00+00:00"
    host:
      description: Name of the host.
      returned: always
      type: str
      sample: a10-535
    check:
      description: Whether the report was made in check mode.
      returned: always
      type: bool
      sample: false
    result:
      description:
        - What the host came out as. V(proven), V(cpu), V(degraded), V(unproven) and V(failed) are the verdict's;
          V(checked) is a host with a plan in check mode, V(blocked) one whose plan is, V(not_run) one with a plan and no
          verdict.
        - In an audit, V(observed) is a host on which nothing runs that could be proven.
        - Of a driver it is V(unchanged), V(changed), V(planned) (is to change), V(checked) (would change, in check mode),
          V(reboot_required), V(blocked), V(failed), V(unreachable) or V(not_run).
      returned: always
      type: str
      sample: proven
    ok:
      description:
        - Whether nobody has to look after the host, which V(proven), V(cpu), V(degraded), V(checked) and V(observed) mean.
        - Of a driver V(unchanged), V(changed), V(planned), V(checked) and V(reboot_required) mean it; the latter since the reboot was
          left to the operator by the operator's own setting.
      returned: always
      type: bool
      sample: true
    message:
      description: The result in one sentence, and in a second one why going back failed, when it did.
      returned: always
      type: str
      sample: matrix product on NVIDIA A10 agrees with the CPU
    code:
      description: Code of what is wrong, null when nothing is or none was given.
      returned: always
      type: str
      sample: DG404
    remedy:
      description: What to do about it, null when there is nothing to do.
      returned: always
      type: str
      sample: upgrade the driver
    outcome:
      description: The host's C(dify_outcome), null when it has none.
      returned: always
      type: dict
      sample: {status: restored, message: the proof failed}
    gpus:
      description: The kinds of GPUs of the host, each with C(name) and C(count).
      returned: always
      type: list
      elements: dict
      sample: [{name: NVIDIA A10, count: 2}]
    driver:
      description: Version of the loaded driver, null when none is.
      returned: always
      type: str
      sample: 535.247.01
    cuda:
      description: CUDA version that the driver supports.
      returned: always
      type: str
      sample: "12.2"
    toolkit:
      description: Version of the container toolkit, null when it is not installed.
      returned: always
      type: str
      sample: 1.19.1
    engine:
      description: Name and version of the container engine, null when there is none.
      returned: always
      type: str
      sample: docker 26.1.5
    variant:
      description: Name of the planned image variant.
      returned: always
      type: str
      sample: cuda12.6
    image:
      description: Reference of the planned image.
      returned: always
      type: str
      sample: difyops/dify-gpu:web-server-cuda12.6-v0.1.0
    before:
      description: Of the first part of a host, its version before, null when none was there.
      returned: when O(show) is V(provision) or V(provision_outcome)
      type: str
      sample: 535.288.01
    after:
      description: Of the first part of a host, its version now, null when none is there or it is not known.
      returned: when O(show) is V(provision) or V(provision_outcome)
      type: str
      sample: 580.95.05
    parts:
      description: What became of C(driver), C(engine) and C(toolkit), each with C(status), C(before), C(after), C(message) and C(code);
        null of a part that the run did not come to.
      returned: when O(show) is V(provision) or V(provision_outcome)
      type: dict
    plan:
      description: The plan without the content of files, null when there is none. In a report of V(provision), the
        plans of C(driver), C(engine) and C(toolkit).
      returned: always
      type: dict
      sample: {status: change, mode: gpu}
    verdict:
      description: The whole verdict, null when there is none.
      returned: always
      type: dict
      sample: {overall: proven}
    containers:
      description: In an audit, the whole verdicts on other containers.
      returned: always
      type: list
      elements: dict
      sample: []
    warnings:
      description: What facts, plan and verdicts warn of, each with C(code) and C(message).
      returned: always
      type: list
      elements: dict
      sample: [{code: DG213, message: The container toolkit 1.17.4 has a known container escape.}]
summary:
  description: How many hosts there are, and how many came out as what.
  returned: always
  type: dict
  sample:
    {hosts: 3, proven: 2, cpu: 1, degraded: 0, checked: 0, observed: 0, unproven: 0, failed: 0, blocked: 0, unreachable: 0, not_run: 0}
failed_hosts:
  description: Hosts that somebody has to look after.
  returned: always
  type: list
  elements: str
  sample: [t4-470]
"""
