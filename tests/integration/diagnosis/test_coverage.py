# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every code of docs/diagnosis.md is produced by a test: here on a simulated host, or by the unit test that is named below. Needs no fleet.

A mark `produces` is no mere claim: after the test the codes of the mark are compared with those that its assertions have seen.
"""
from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from .lab import REPO

UNIT = REPO / "tests/unit/plugins"
# Codes that no state of a host produces, but an option, a catalog, a missing task or a whole fleet; by the constant that the test names
# them with, where it is another text than the code.
ELSEWHERE = {
    # The judge sees from the architectures that PyTorch lists that PTX cannot be compiled, which is DG406, before a kernel is started.
    "DG509": ("module_utils/test_verdict.py", "test_what_is_broken_is_found_at_its_link", "DG509"),
    "DG705": ("plugin_utils/test_plan_selector.py", "test_a_stricter_minimum_of_the_catalog", "BELOW_MIN_DRIVER"),
    "DG715": ("action/test_plan_action.py", "test_facts_come_from_the_host_or_from_the_options", "DG715"),
    "DG716": ("plugin_utils/test_plan_planner.py", "test_no_gpu_and_no_cpu_variant", "NO_CPU_VARIANT"),
    "DG719": ("plugin_utils/test_plan_driver.py", "test_impossible_drivers_block_with_the_reason", "DRIVER_IMPOSSIBLE"),
    "DG727": ("plugin_utils/test_plan_planner.py", "test_an_image_is_not_built_without_buildx", "NO_BUILDX"),
    "DG730": ("action/test_plan_action.py", "test_facts_of_an_earlier_run_do_not_count_where_an_empty_option_says_so", "DG730"),
    "DG731": ("plugin_utils/test_plan_fleet.py", "test_hosts_of_which_nothing_is_known", "FLEET_MISSING"),
    "DG732": ("plugin_utils/test_plan_fleet.py", "test_no_variant_for_all", "FLEET_NO_VARIANT"),
    "DG733": ("plugin_utils/test_plan_driver.py", "test_a_service_whose_image_nobody_brings_is_blocked", "IMAGE_NOT_APPLIED"),
    "DG740": ("plugin_utils/test_plan_features.py", "test_a_range_of_cuda", "OUTSIDE_CUDA_RANGE"),
    "DG741": ("plugin_utils/test_plan_features.py", "test_features_in_a_choice", "FEATURE_MISSING"),
    "DG755": ("plugin_utils/test_plan_planner.py", "test_force", "FORCED"),
    "DG761": ("action/test_plan_action.py", "test_facts_of_an_earlier_run_do_not_count_where_an_empty_option_says_so", "DG761"),
    "DG770": ("plugin_utils/test_plan_driver.py", "test_a_wanted_upgrade_that_the_caller_does_not_make_is_a_warning", "DRIVER_NOT_APPLIED"),
    "DG771": ("plugin_utils/test_plan_driver.py", "test_a_rule_that_holds_the_driver_is_told_of_before_the_change", "DRIVER_HELD"),
    "DG772": ("plugin_utils/test_plan_driver.py", "test_a_driver_without_packages_is_uninstalled_first", "DRIVER_NOT_FROM_PACKAGES"),
    "DG773": ("plugin_utils/test_plan_driver_change.py", "test_a_host_that_is_no_target_is_not_changed", "DG773"),
    "DG775": ("plugin_utils/test_plan_driver_change.py", "test_the_table_of_states_and_consents", "DG775"),
    "DG776": ("plugin_utils/test_plan_driver_change.py", "test_the_table_of_users_and_policies", "DG776"),
    "DG777": ("plugin_utils/test_plan_driver_change.py", "test_the_table_of_rules", "DG777"),
    "DG778": ("plugin_utils/test_plan_driver_change.py", "test_secure_boot", "DG778"),
    "DG779": ("plugin_utils/test_plan_driver_change.py", "test_headers_that_are_not_ours_to_bring", "DG779"),
    "DG785": ("plugin_utils/test_plan_driver_change.py", "test_a_host_that_is_no_target_is_not_changed", "DG785"),
    "DG787": ("plugin_utils/test_plan_driver_change.py", "test_an_interrupted_run_is_finished", "DG787"),
    "DG788": ("plugin_utils/test_driver_work.py", "test_debian_adds_the_components_that_its_own_mirror_has", "DG788"),
    "DG791": ("plugin_utils/test_plan_driver_change.py", "test_a_first_driver_that_cannot_be_loaded_yet_waits_for_the_operator", "DG791"),
    "DG793": ("plugin_utils/test_driver_work.py", "test_a_driver_that_others_need_is_not_removed", "DG793"),
    "DG803": ("plugin_utils/test_platform_engine.py", "test_a_distributions_docker_without_compose_names_the_other_source", "DG803"),
    "DG815": ("plugin_utils/test_platform_toolkit.py", "test_how_containers_get_their_gpus", "DG815"),
    "DG818": ("plugin_utils/test_platform_engine.py", "test_what_becomes_of_a_docker_that_is_there", "DG818"),
    "DG901": ("action/test_dify_plan.py", "test_an_archive_that_cannot_be_used_blocks", "DG901"),
    "DG902": ("action/test_dify_plan.py", "test_an_archive_that_cannot_be_used_blocks", "DG902"),
    "DG903": ("action/test_dify_plan.py", "test_an_archive_that_cannot_be_used_blocks", "DG903"),
    "DG904": ("plugin_utils/test_app_plan.py", "test_what_of_a_release_is_not_known", "APP_UNKNOWN"),
    "DG905": ("plugin_utils/test_app_plan.py", "test_ports_of_others_block_and_our_own_do_not", "APP_PORT"),
    "DG906": ("plugin_utils/test_app_plan.py", "test_disk_is_added_up_for_each_file_system", "APP_DISK"),
    "DG907": ("plugin_utils/test_app_plan.py", "test_memory", "APP_MEMORY"),
    "DG909": ("plugin_utils/test_app_plan.py", "test_compose", "APP_COMPOSE"),
    "DG910": ("plugin_utils/test_app_plan.py", "test_settings_that_do_not_go_with_the_release", "APP_UNKNOWN_KEY"),
    "DG911": ("plugin_utils/test_plan_models.py", "test_a_model_that_is_not_whole_blocks_the_service", "DG911"),
    "DG912": ("plugin_utils/test_app_plan.py", "test_an_older_release_needs_consent", "APP_DOWNGRADE"),
    "DG913": ("plugin_utils/test_app_plan.py", "test_settings_that_do_not_go_with_the_release", "DG913"),
    "DG917": ("plugin_utils/test_app_plan.py", "test_images_come_pinned_and_from_the_sites_registry", "DG917"),
    "DG918": ("plugin_utils/test_app_plan.py", "test_an_interrupted_run_is_finished", "DG918"),
    "DG914": ("module_utils/test_console.py", "test_what_is_wrong_with_containers_is_named", "DG914"),
    "DG916": ("module_utils/test_dify_backup.py", "test_writers_must_be_stopped", "DG916"),
    "DG920": ("module_utils/test_console.py", "test_the_gate_is_shut_with_another_password", "DG920"),
    "DG921": ("module_utils/test_console.py", "test_a_model_server_that_refuses_is_named_in_its_own_words", "DG921"),
    "DG923": ("module_utils/test_console.py", "test_nobody_answers", "DG923"),
    "DG922": ("plugin_utils/test_app_plan.py", "test_a_url_that_cannot_be_used", "APP_OPTION"),
    "DG924": ("plugin_utils/test_app_plan.py", "test_another_compose_project_in_the_place", "APP_FOREIGN"),
    "DG925": ("plugin_utils/test_app_plan.py", "test_a_key_that_nobody_knows", "APP_NO_KEY"),
    "DG926": ("plugin_utils/test_app_plan.py", "test_another_secret_than_that_of_the_data", "APP_NOT_OF_THE_DATA"),
    "DG853": ("plugin_utils/test_upgrade.py", "test_what_keeps_a_host_out_has_its_remedy", "DG853"),
    "DG857": ("plugin_utils/test_upgrade.py", "test_a_service_that_would_not_come_back_blocks_its_host", "DG857"),
}


def documented() -> set[str]:
    """Return the codes that have an entry in the guide."""
    return set(re.findall(r"^### (DG\d{3}) ", (REPO / "docs/diagnosis.md").read_text(encoding="utf-8"), re.MULTILINE))


def produced() -> set[str]:
    """Return the codes in the marks of this folder's tests."""
    found = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "produces":
                found |= {ast.literal_eval(argument) for argument in node.args}
    return found


def of_changes() -> set[str]:
    """Return the codes that tests on hosts of their own name, which change their hosts: of drivers, engines and toolkits, and of Dify."""
    suites = ("driver", "engine_and_toolkit", "upstream", "upgrade")
    tests = [path for suite in suites for path in (REPO / "tests/integration" / suite).glob("test_*.py")]
    return {code for path in tests for code in re.findall(r"\bDG(?:7[789]|8\d|9[012])\d\b", path.read_text(encoding="utf-8"))}


def test_every_code_is_produced_by_a_test() -> None:
    assert documented() - produced() - set(ELSEWHERE) - of_changes() == set()


def test_no_test_produces_a_code_that_is_not_documented() -> None:
    assert (produced() | set(ELSEWHERE)) - documented() == set()


def test_a_code_that_a_host_produces_is_not_excused() -> None:
    assert set(ELSEWHERE) & produced() == set()


@pytest.mark.parametrize(("file", "name", "text"), ELSEWHERE.values(), ids=list(ELSEWHERE))
def test_the_named_unit_test_is_there(file: str, name: str, text: str) -> None:
    source = (UNIT / file).read_text(encoding="utf-8")
    assert name in {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    assert re.search(rf"\b{text}\b", source)
