# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables in compose texts, as compose itself replaces them."""

from __future__ import annotations

import pytest
from ansible_collections.difyops.gpu.plugins.plugin_utils import _compose_text
from hypothesis import given
from hypothesis import strategies as st

SET = {"A": "a", "EMPTY": "", "HOST": "db", "PORT": "5432"}
NAMES = st.sampled_from(["A", "EMPTY", "UNSET", "HOST"])
TEXTS = st.text(alphabet="ab $-:/.", max_size=8).map(lambda text: text.replace("$", "$$"))
NESTED = st.recursive(
    TEXTS,
    lambda inner: st.builds(lambda name, how, word: f"${{{name}{how}{word}}}", NAMES, st.sampled_from([":-", "-", ":+", "+"]), inner),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("$A", "a"),
        ("${A}", "a"),
        ("x${A}y$A", "xaya"),
        ("$UNSET", ""),
        ("${UNSET}", ""),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${UNSET-d}", "d"),
        ("${A:-d}", "a"),
        ("${A:+r}", "r"),
        ("${EMPTY:+r}", ""),
        ("${EMPTY+r}", "r"),
        ("${UNSET+r}", ""),
        ("${A:?needed}", "a"),
        ("${EMPTY?needed}", ""),
        ("${UNSET:-${A}}", "a"),
        ("${UNSET:-${EMPTY:-${HOST}:${PORT}}}", "db:5432"),
        ("${UNSET:-$A}", "a"),
        ("${UNSET:-}", ""),
        ("$$A", "$A"),
        ("$${A}", "${A}"),
        ("$$$A", "$a"),
        ("100$", "100$"),
        ("$ 5 $1", "$ 5 $1"),
        ("${UNSET:-a$$b}", "a$b"),
        ("${UNSET:-{x}", "{x"),
        ("redis://:${UNSET:-p-w}@${HOST:-redis}:6379/1", "redis://:p-w@db:6379/1"),
    ],
)
def test_a_text_is_replaced_as_compose_does(text, expected):
    assert _compose_text.interpolate(text, SET) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("${UNSET:?give a name}", "UNSET is required: give a name"),
        ("${EMPTY:?}", "EMPTY is required"),
        ("${UNSET?$A}", "UNSET is required: a"),
        ("${}", "No name"),
        ("${1}", "No name"),
        ("${A", "${A is nothing"),
        ("${A:-hidden", "not closed"),
        ("${A/hidden/x}", "nothing that compose knows"),
    ],
)
def test_what_compose_refuses_is_an_error_that_shows_no_default(text, told):
    with pytest.raises(_compose_text.InterpolationError) as error:
        _compose_text.interpolate(text, SET)
    assert told in str(error.value)
    assert "hidden" not in str(error.value)


def test_many_levels_are_an_error_and_no_crash():
    deep = "${U:-" * 5000 + "}" * 5000
    with pytest.raises(_compose_text.InterpolationError):
        _compose_text.interpolate(deep, {})
    assert _compose_text.references(deep)


def test_variables_of_a_text_are_told_with_their_defaults():
    found = {(item.name, item.operator, item.word) for item in _compose_text.references("$A ${B} ${C:-${D-e}} $$F")}
    assert found == {("A", "", ""), ("B", "", ""), ("C", ":-", "${D-e}"), ("D", "-", "e")}


def test_a_text_with_an_error_has_no_variables():
    assert _compose_text.references("$A ${G") == []


@given(st.text(max_size=60), st.dictionaries(NAMES, st.text(max_size=5)))
def test_any_text_ends_in_a_text_or_in_the_error(text, variables):
    try:
        assert isinstance(_compose_text.interpolate(text, variables), str)
    except _compose_text.InterpolationError as error:
        assert str(error).endswith(".")
    _compose_text.references(text)


@given(st.text(max_size=60))
def test_a_doubled_dollar_sign_keeps_any_text(text):
    assert _compose_text.interpolate(text.replace("$", "$$"), {"A": "b"}) == text


@given(NESTED)
def test_a_default_that_is_taken_is_replaced_by_itself(text):
    assert _compose_text.interpolate(f"${{UNSET:-{text}}}", SET) == _compose_text.interpolate(text, SET)
    assert _compose_text.interpolate(f"${{A:-{text}}}", SET) == "a"


@given(st.text(max_size=30))
def test_values_are_not_replaced_again(value):
    assert _compose_text.interpolate("${A}", {"A": value}) == value
