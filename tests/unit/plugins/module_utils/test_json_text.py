# Copyright (c) 2026, the difyops.gpu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json
import time

import pytest
from ansible_collections.difyops.gpu.plugins.module_utils import _json_text
from hypothesis import given
from hypothesis import strategies as st

KEYS = st.sampled_from(["features", "cdi", "runtimes", "a", "", 'quo"te', "π", "\ud83d"]) | st.text(max_size=4)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=4)
PATHS = st.lists(KEYS, min_size=1, max_size=3).map(tuple)
SPACES = st.sampled_from(["", " ", "\n", "\t", "\r\n", "  ", "\n    ", " \n\n "])


@st.composite
def written(draw, value):
    """One of the many texts that mean a value: any white space, any way to write a string."""

    def space():
        return draw(SPACES)

    def scalar(one):
        return json.dumps(one, ensure_ascii=draw(st.booleans()) or not _encodable(one))

    def text(one):
        if isinstance(one, dict):
            members = [f"{space()}{scalar(key)}{space()}:{space()}{text(item)}{space()}" for key, item in one.items()]
            return "{" + (",".join(members) or space()) + "}"
        if isinstance(one, list):
            return "[" + (",".join(f"{space()}{text(item)}{space()}" for item in one) or space()) + "]"
        return scalar(one)

    return space() + text(value) + space()


def _encodable(one):
    return not isinstance(one, str) or not any("\ud800" <= character <= "\udfff" for character in one)


FILES = st.builds(lambda bom, text: bom + text, st.sampled_from(["", "\ufeff"]), OBJECTS.flatmap(written))


def loaded(text):
    return json.loads(text.lstrip("\ufeff"))


def merged(value, path, wanted):
    """What put() means, on plain Python values."""
    value = copy.deepcopy(value)
    node = value
    for key in path[:-1]:
        if not isinstance(node.get(key), dict):
            node[key] = {}
        node = node[key]
    if wanted != {} or not isinstance(node.get(path[-1]), dict):
        node[path[-1]] = wanted
    return value


def outside(before, after):
    """Return the one span that differs, in both texts: from the first other character to the last one."""
    start = 0
    while start < min(len(before), len(after)) and before[start] == after[start]:
        start += 1
    end = 0
    while end < min(len(before), len(after)) - start and before[-1 - end] == after[-1 - end]:
        end += 1
    return before[start : len(before) - end], after[start : len(after) - end]


def exactly(value):
    """A form in which 1, 1.0 and true differ."""
    return json.dumps(value, sort_keys=True)


@given(FILES)
def test_it_reads_what_python_reads(text):
    assert exactly(_json_text.value(_json_text.parse(text))) == exactly(loaded(text))


@given(FILES, PATHS, VALUES)
def test_put_is_a_merge_and_twice_is_once(text, path, wanted):
    after = _json_text.put(text, path, wanted)
    assert exactly(loaded(after)) == exactly(merged(loaded(text), path, wanted))
    assert _json_text.put(after, path, wanted) == after
    if exactly(loaded(after)) == exactly(loaded(text)):
        assert after == text


@given(FILES, PATHS, VALUES)
def test_put_touches_no_other_character(text, path, wanted):
    after = _json_text.put(text, path, wanted)
    gone, come = outside(text, after)
    node = loaded(text)
    for depth, key in enumerate(path):
        if not (isinstance(node, dict) and key in node):
            if isinstance(node, dict):
                # A new key: nothing of the old text goes but white space within an empty object.
                assert gone.strip(" \t\r\n") == "" and (node == {} or gone == "")
            else:
                assert len(gone) <= len(_span(text, path[:depth]))
            break
        node = node[key]
    else:
        # Another value: what goes is within the old value.
        assert gone in _span(text, path)
        assert come in _span(after, path)


def _span(text, path):
    node = _json_text.find(text, path)
    return text[node.start : node.end]


@given(FILES, PATHS, VALUES)
def test_what_was_put_into_something_can_be_taken_away_to_the_letter(text, path, wanted):
    node = _json_text.parse(text) if len(path) == 1 else _json_text.find(text, path[:-1])
    if node is None or not node.members or _json_text.find(text, path):
        return
    assert _json_text.take(_json_text.put(text, path, wanted), path) == text


@given(FILES, PATHS)
def test_take_takes_the_key_and_what_gets_empty(text, path):
    after = _json_text.take(text, path)
    model = loaded(text)
    chain = [model]
    for key in path:
        if not (isinstance(chain[-1], dict) and key in chain[-1]):
            assert after == text
            return
        chain.append(chain[-1][key])
    for depth in reversed(range(len(path))):
        del chain[depth][path[depth]]
        if chain[depth]:
            break
    assert exactly(loaded(after)) == exactly(model)
    assert _json_text.take(after, path) == after
    # Nothing new comes: the rest is the old text without one piece.
    assert outside(text, after)[1] == ""


@given(st.text(max_size=30) | st.text(alphabet='{}[]",:\\/u0e-.tnr \n1#*', max_size=14).map(lambda text: "{" + text))
def test_any_text_is_read_as_python_reads_it_or_refused_in_words(text):
    try:
        root = _json_text.parse(text)
    except _json_text.JsonError as error:
        assert str(error).startswith("line ")
    else:
        assert exactly(_json_text.value(root)) == exactly(loaded(text))


@given(FILES)
def test_other_scalars_and_nothing_else(text):
    assert _json_text.rewritten(text, lambda _path, scalar: scalar) == text
    hidden = _json_text.rewritten(text, lambda _path, scalar: "X" if isinstance(scalar, str) else scalar)

    def masked(value):
        if isinstance(value, dict):
            return {key: masked(item) for key, item in value.items()}
        return [masked(item) for item in value] if isinstance(value, list) else "X" if isinstance(value, str) else value

    assert exactly(loaded(hidden)) == exactly(masked(loaded(text)))


@pytest.mark.parametrize(
    ("before", "path", "wanted", "after"),
    [
        ("{}\n", "features.cdi", True, '{\n  "features": {\n    "cdi": true\n  }\n}\n'),
        ('{\n\t"a": 1\n}', "b.c", [], '{\n\t"a": 1,\n\t"b": {\n\t\t"c": []\n\t}\n}'),
        ('{"a":1}', "b.c", [1, 2], '{"a":1,"b":{"c":[1,2]}}'),
        ('{ "a": 1 }', "b.c", [1, 2], '{ "a": 1, "b": {"c": [1, 2]} }'),
        ('{\r\n    "a": {}\r\n}\r\n', "a.b", 1, '{\r\n    "a": {\r\n        "b": 1\r\n    }\r\n}\r\n'),
        ('{\n    "a": { "x": 1 },\n\n    "b" : 2\n}', "a.y", 2, '{\n    "a": { "x": 1, "y": 2 },\n\n    "b" : 2\n}'),
        ('{\n    "a": "old"\n}', "a", ["new"], '{\n    "a": [\n        "new"\n    ]\n}'),
        ('{\n    "a": "old"\n}', "a.b", None, '{\n    "a": {\n        "b": null\n    }\n}'),
        ('{"f\\u0065atures": {"cdi": false}}', "features.cdi", True, '{"f\\u0065atures": {"cdi": true}}'),
        ('\ufeff{"a": 1.0}', "a", 1, '\ufeff{"a": 1}'),
        ('{"a": 1}', "a", True, '{"a": true}'),
        ('{"a": 1e3}', "a", 1000.0, '{"a": 1e3}'),
        ('{"a": [1, {"b": 2}]}', "a", [1, {"b": 2}], '{"a": [1, {"b": 2}]}'),
        (f'{{"a": {"9" * 5000}, "b": 1e999}}', "b", 1, f'{{"a": {"9" * 5000}, "b": 1}}'),
        (f'{{"a": {"9" * 5000}}}', "a", "9" * 5000, f'{{"a": "{"9" * 5000}"}}'),
        ('{"x": 1, "x": 2}', "a", 1, '{"x": 1, "x": 2, "a": 1}'),
    ],
)
def test_it_writes_as_the_file_is_written(before, path, wanted, after):
    assert _json_text.put(before, tuple(path.split(".")), wanted) == after


@pytest.mark.parametrize(
    ("before", "path", "keep", "after"),
    [
        ('{\n  "a": 1,\n  "b": 2,\n  "c": 3\n}\n', "a", "", '{\n  "b": 2,\n  "c": 3\n}\n'),
        ('{\n  "a": 1,\n  "b": 2,\n  "c": 3\n}\n', "b", "", '{\n  "a": 1,\n  "c": 3\n}\n'),
        ('{\n  "a": 1,\n  "b": 2,\n  "c": 3\n}\n', "c", "", '{\n  "a": 1,\n  "b": 2\n}\n'),
        ('{\n  "a": {"b": {"c": 1}}\n}\n', "a.b.c", "", "{}\n"),
        ('{"x": 1, "a": {"b": {"c": 1}}}', "a.b.c", "", '{"x": 1}'),
        ('{"x": 1, "a": {"b": {"c": 1}}}', "a.b.c", "a", '{"x": 1, "a": {}}'),
        ('{"a": {}}', "a.b", "", '{"a": {}}'),
        ('{"a": [1]}', "a.b", "", '{"a": [1]}'),
    ],
)
def test_it_takes_away(before, path, keep, after):
    assert _json_text.take(before, tuple(path.split(".")), {tuple(keep.split("."))}) == after


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{\n  // hi\n}', "line 2, column 3: there is a comment"),
        ('{"a": 1 # hi\n}', "line 1, column 9: there is a comment"),
        ('{"a": /* 1 */ 2}', "line 1, column 7: there is a comment"),
        ('{"a": 1,\n}', "line 1, column 8: there is a comma before }"),
        ('{"a": [1,]}', "line 1, column 9: there is a comma before ]"),
        ('{"a": 1\n "b": 2}', "line 2, column 2: a comma or } was expected, something else was found"),
        ("{'a': 1}", "line 1, column 2: a key in double quotes was expected, ' was found"),
        ('{"a" 1}', "line 1, column 6: a colon was expected"),
        ('{"a": True}', "line 1, column 7: a value was expected, something else was found"),
        ('{"a": NaN}', "a value was expected"),
        ('{"a": 01}', "a value was expected"),
        ('{"a": 1.}', "a value was expected"),
        ('{"a": "x', "line 1, column 7: the string that starts here has no end"),
        ('{"a": "x\ny"}', "line 1, column 7: the string that starts here"),
        ('{"a": "\\x"}', "line 1, column 7: the string that starts here"),
        ('\ufeff{"a"}', "line 1, column 5: a colon was expected, } was found"),
        ("{}{}", "line 1, column 3: the end of the file was expected, { was found"),
        ('{"a": 1', "line 1, column 8: a comma or } was expected, the end of the file was found"),
        ("[]", "line 1, column 1: it holds a value that is no JSON object"),
        ("null", "no JSON object"),
        ('{"a":' * 100_000, "nested deeper than 100 levels"),
        ('{"a":' + "[" * 100_000, "nested deeper than 100 levels"),
    ],
)
def test_it_says_where_a_text_is_wrong(text, words):
    with pytest.raises(_json_text.JsonError, match=r"\Aline ") as caught:
        _json_text.parse(text)
    assert words in str(caught.value)


def test_a_string_without_end_costs_no_time():
    started = time.process_time()
    with pytest.raises(_json_text.JsonError):
        _json_text.parse('{"a": "' + "x\\n" * 200_000)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(("path", "where"), [("b.c", "line 2, column 2 and line 4, column 2"), ("b", "line 2, column 2")])
def test_a_key_that_is_there_twice_is_not_changed(path, where):
    text = '{\n "b": {"c": 1},\n "a": 1,\n "b": {"c": 1}}'
    for change in (lambda keys: _json_text.put(text, keys, 1), lambda keys: _json_text.take(text, keys)):
        with pytest.raises(_json_text.DuplicateKeyError, match=f"b is there more than once, at {where}"):
            change(tuple(path.split(".")))


@pytest.mark.parametrize(
    ("text", "skeleton"), [("", "{}\n"), (" \n", "{}\n"), ("\r\n", "{}\r\n"), ("\ufeff", "\ufeff{}\n"), ("{", None), ("x", None)]
)
def test_what_counts_as_empty(text, skeleton):
    assert _json_text.is_empty(text) is (skeleton is not None)
    assert skeleton is None or _json_text.skeleton(text) == skeleton
