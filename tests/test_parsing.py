"""Reading raw outputs: each fault has its reason, and hostile text costs neither a crash nor time."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elle.briefings.schema import Briefing
from elle.evaluation.parsing import MAX_BYTES, MAX_DEPTH, parse_output, schema_valid

GOOD = {name: f"{name} 1" for name in Briefing.model_fields}
TEXT = json.dumps(GOOD)
FENCED_INSIDE = json.dumps({**GOOD, "nsm": 'Run ```json\n{"a": 1}\n``` and } stop.'})


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


@pytest.mark.parametrize("text", [TEXT, f" \n\t{TEXT}\r\n", FENCED_INSIDE, nested(MAX_DEPTH), "{}", r'{"a": "😀"}'])
def test_strict(text):
    parsed = parse_output(text)
    assert (parsed.strict, parsed.lenient, parsed.how, parsed.reason) == (True, True, "as is", "")
    assert parsed.value == json.loads(text)


@pytest.mark.parametrize(
    ("text", "how", "reason"),
    [
        (f"```json\n{TEXT}\n```", "from a code fence", "in a code fence"),
        (f"Briefing {{draft}} \\frac{{1}}{{2}}: {TEXT}", "from surrounding prose", "text before the object"),
        (f'First {{"note": "x"}} then {TEXT}', "from surrounding prose", "text before"),
        (f'First {{"broken": }} then {TEXT}', "from surrounding prose", "text before"),
        (f"[{TEXT}]", "from surrounding prose", "a JSON list"),
        (f"\ud800 {TEXT}", "from surrounding prose", "text before"),
    ],
)
def test_lenient_only(text, how, reason):
    parsed = parse_output(text)
    assert (parsed.strict, parsed.lenient, parsed.how, parsed.value) == (False, True, how, GOOD)
    assert reason in parsed.reason or reason == "a JSON list"


def test_a_fence_inside_a_string_does_not_end_the_fence():
    assert parse_output(f"```json\n{FENCED_INSIDE}\n```").value == json.loads(FENCED_INSIDE)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "duplicate key 'a'"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": 1e999}', "a number too large"),
        ('{"a": ' + "9" * 5000 + "}", "a number too large"),
        (r'{"a": "\ud800"}', "a lone surrogate"),
        ('{"a": "\ud800"}', "a lone surrogate"),
        (nested(MAX_DEPTH + 1), "nested deeper"),
        (nested(100_000), "nested deeper"),
        ('{"a":' + "[" * 10_000 + "]" * 10_000 + "}", "nested deeper"),
        (TEXT[:-1], "cut off"),
        ('{"political": "x", "more": {"a": 1}', "cut off"),  # the part that is whole is not the object
        ('{"political": "x" "more": {"a": 1}}', "not JSON: Expecting ',' delimiter"),
        ('{"a": "line\nbreak"}', "not JSON: Invalid control character"),
        (json.dumps({"a": "x" * 5_000_000}), "too long"),
        (json.dumps({"a": "é" * (MAX_BYTES // 2)}, ensure_ascii=False), "too long"),
    ],
)
@pytest.mark.parametrize("fenced", [False, True])
def test_no_object(text, reason, fenced):
    parsed = parse_output(f"```json\n{text}\n```" if fenced else text)
    assert (parsed.strict, parsed.lenient, parsed.how, parsed.value) == (False, False, "", None)
    assert reason in parsed.reason or fenced


@pytest.mark.parametrize(
    "text",
    [
        "{" * MAX_BYTES,
        '{"a":' * (MAX_BYTES // 5),
        '{"' * (MAX_BYTES // 2),
        "[" * MAX_BYTES,
        "```json" * (MAX_BYTES // 7),
        '{"a": [' + "1," * (MAX_BYTES // 2 - 5),
    ],
    ids=lambda text: text[:8],
)
def test_hostile_megabytes_take_linear_time(text):
    begin = time.process_time()
    parse_output(text)
    assert time.process_time() - begin < 5  # each takes well under a second; quadratic ones would take minutes


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text('{}[]",:\\`ujson 1.eNa\n') | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_any_text_is_read_without_a_crash(text):
    parsed = parse_output(text)
    assert parsed.strict <= parsed.lenient == (parsed.value is not None)
    assert parsed.strict == (parsed.reason == "")
    if parsed.strict:
        assert json.loads(text.strip()) == parsed.value


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(codec="utf-8"))))
def test_any_object_of_texts_is_strict_and_survives_a_fence(value):
    assert parse_output(json.dumps(value)).value == value
    assert parse_output(f"```json\n{json.dumps(value, ensure_ascii=False, indent=1)}\n```").value == value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({}, "missing: political, economic"),
        ({**GOOD, "cyber": None, "more": 1}, "wrong type: cyber; extra: more"),
        ([], "wrong type: the whole"),
    ],
)
def test_schema(value, reason):
    assert schema_valid(GOOD) is None
    assert reason in schema_valid(value)
