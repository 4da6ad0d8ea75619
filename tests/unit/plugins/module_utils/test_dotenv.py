# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of variables: read and written as Docker Compose reads them."""

from __future__ import annotations

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _dotenv
from ansible_collections.difyops.gpu.plugins.plugin_utils import _compose_text
from hypothesis import example, given
from hypothesis import strategies as st

# Each as `docker compose config` of compose 2.26.1 told it, for a service with this file as env_file.
SEEN = [
    ("K= # c", "# c"),
    ("K=a# b", "a# b"),
    ("K=a # b", "a"),
    ("K=  a  ", "a"),
    ("K='a' # c", "a"),
    ('K="a\\nb"', "a\nb"),
    ("K='a\\nb'", "a\\nb"),
    ("K=a'b'", "a'b'"),
    ("export K=x", "x"),
    ("K: y", "y"),
    ('K="a\\$b"', "a$b"),
    ("K=${K100X:-q}", "q"),
    ("K=#x", "#x"),
    ("K='a\\\\'", "a\\\\"),
    ('K="a\\\\b"', "a\\b"),
    ("K=a b c", "a b c"),
    ("K=a\\nb", "a\\nb"),
    ('K="two\nlines"', "two\nlines"),
    ("K=x$$y", "x$y"),
    ('K="\\x"', "\\x"),
    ("K=it's", "it's"),
    ("K=a=b", "a=b"),
]
# What a line can hold: no control characters but the tab, and no line breaks.
VALUES = st.text(alphabet=st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), include_characters="\t"), max_size=24)
HARD = st.text(alphabet="ab1 \t'\"\\$#{}=:-+n0é", max_size=12)


def read(text, key="K"):
    """Return a value as it arrives in a container."""
    return _compose_text.interpolate(_dotenv.values(text)[key], {})


@pytest.mark.parametrize(("line", "value"), SEEN)
def test_a_line_is_read_as_compose_reads_it(line, value):
    assert read(f"# before\n{line}\nNEXT=1\n") == value
    assert _dotenv.values(f"{line}\nNEXT=1\n")["NEXT"] == "1"
    assert read(line) == value


@given(st.one_of(VALUES, HARD))
@example("a\\")
@example("'\\")
@example("\\\"'")
@example("it's \\n")
@example("'${X:-a}")
@example("\\$'")
def test_any_value_arrives_to_the_letter(value):
    text = f"A=1\nK={_dotenv.render(value)}\nB=2\n"
    assert read(text) == value
    assert list(_dotenv.values(text)) == ["A", "K", "B"]
    assert _dotenv.plain(_dotenv.values(text)["K"]) == value


@pytest.mark.parametrize("value", ["dify", "http://db:5432/x?a=b&c=1", "", "100M", "*", "C.UTF-8"])
def test_a_simple_value_has_no_quotes(value):
    assert _dotenv.render(value) == value


def test_quotes_are_single_ones_where_they_can_be():
    assert _dotenv.render("a b") == "'a b'"
    assert _dotenv.render("$X") == "'$X'"
    assert _dotenv.render("it's $5") == '"it\'s $$5"'


@pytest.mark.parametrize(
    ("value", "told"),
    [("a\nb", "a line break"), ("a\r", "a line break"), ("\0", "U+0000"), ("\x1b", "U+001B"), ("\ud800", "U+D800")],
)
def test_what_no_line_can_hold_is_told_without_the_value(value, told):
    with pytest.raises(_dotenv.DotenvError, match=told.replace("+", "\\+")):
        _dotenv.render(value)
    with pytest.raises(_dotenv.DotenvError, match=r"^KEY cannot be set"):
        _dotenv.edit("", {"KEY": value}, "t")


@pytest.mark.parametrize(("text", "line"), [("A=1\nno variable\n", 2), ("A=1\n\n# c\nB='open\n", 4), ('A="x', 1), ("=x\n", 1)])
def test_a_broken_line_is_told_by_its_number(text, line):
    with pytest.raises(_dotenv.DotenvError, match=f"ine {line} "):
        _dotenv.parse(text)


def test_only_values_are_edited():
    before = "\ufeff# Title\n\nexport A = old # why\nB='x'  # kept\nC\n#D=1\nE=\"two\nlines\"\nA=again\r\nZ=left"
    after = _dotenv.edit(before, {"A": "new one", "B": "x", "C": "3", "D": "4", "E": "5"}, "More")
    assert after == (
        "\ufeff# Title\n\nexport A = 'new one' # why\nB='x'  # kept\nC=3\n#D=1\nE=5\nA='new one'\r\nZ=left\n\n# More\nD=4\n"
    )


def test_a_value_that_is_there_keeps_its_own_quotes():
    text = "A=\"x\"\nB='a b'\nC=a b\n"
    assert _dotenv.edit(text, {"A": "x", "B": "a b", "C": "a b"}, "t") == text


FILES = st.lists(
    st.one_of(
        st.sampled_from(["# a comment", "", "#K=1", "   ", "LEFT=$$x # y"]),
        st.builds(lambda key, value: f"{key}={_dotenv.render(value)}", st.sampled_from(["K", "L", "M"]), HARD),
    ),
    max_size=8,
).map("\n".join)


@given(FILES, st.dictionaries(st.sampled_from(["K", "L", "N"]), st.one_of(VALUES, HARD)))
def test_an_edit_sets_what_is_wanted_and_leaves_all_else(text, changes):
    edited = _dotenv.edit(text, changes, "More")
    after = {key: _compose_text.interpolate(value, {}) for key, value in _dotenv.values(edited).items()}
    before = {key: _compose_text.interpolate(value, {}) for key, value in _dotenv.values(text).items()}
    assert after == {**before, **changes}
    assert _dotenv.edit(edited, changes, "More") == edited
    assert [line for line in text.split("\n") if line.startswith("#")] == [
        line for line in edited.split("\n") if line.startswith("#") and line != "# More"
    ]


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text):
    try:
        entries = _dotenv.parse(text)
    except _dotenv.DotenvError as error:
        assert str(error).endswith(".")
        return
    for entry in entries:
        assert 0 <= entry.start <= entry.end <= len(text)


@given(st.text(max_size=20))
def test_a_value_without_variables_is_told_from_one_with_them(value):
    assert _dotenv.plain(_dotenv.literal(value)) == value
    assert _dotenv.plain(_dotenv.literal(value) + "$X") is None
