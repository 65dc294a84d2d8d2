"""The judge, judged: every item of data/redteam.jsonl gets its verdict, no changed digit passes, no damage crashes."""

import json
import random
import re
from functools import cache
from pathlib import Path

import pytest
from hostile import ENDLESS, change_digit, damage, endless
from hypothesis import given, settings
from hypothesis import strategies as st

from elle.base import storage
from elle.briefings import dataset, world
from elle.briefings.schema import Example
from elle.evaluation.grammar import NATIONS
from elle.evaluation.scorecard import METRICS, strict_counts
from elle.evaluation.verdict import Record, judge

LINES = list(storage.read_lines(Path(__file__).resolve().parents[1] / "data" / "redteam.jsonl"))
ROWS = {line["row"]: line for line in LINES if "fault" not in line}
ITEMS = [line for line in LINES if "expect" in line]
#: Written by readers who had not seen the judge's rules: whether the answer is right, not what the judge says.
OTHERS = [line for line in LINES if "right" in line]
#: How many of the right ones are read; it can only rise.
READ = 35
#: What a reason says of a part that is not read.
UNREAD = re.compile(r"\w+: (not read: .*|.* is missing|.*: nothing is said)")
THRESHOLD = re.compile(r"exceeds? (\d+)%")
NUMBER = re.compile(r"(?<!\d)-?\d+(?:\.\d+)?")
#: Metrics that a basic row does not have.
CIC_ONLY = {"arithmetic", "epistemic_bound", "phase"}


def built(recipe: str | dict, reference: str) -> str:
    """An output from its recipe: itself; edits of the reference, each of a passage that occurs once; or parts."""
    if isinstance(recipe, str):
        return recipe
    if "edit" in recipe:
        for old, new in recipe["edit"]:
            assert reference.count(old) == 1, old
            reference = reference.replace(old, new)
        return reference
    if "repeat" in recipe:
        return recipe["repeat"][0] * recipe["repeat"][1]
    if "parts" in recipe:
        return "".join(built(part, reference) for part in recipe["parts"])
    assert recipe == {"reference": True}
    return reference


def judged(item: dict) -> Record:
    row = ROWS[item["row"]]
    return judge(item["id"], row["prompt"], row["reference"], built(item["output"], row["reference"]))


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["id"])
def test_every_item_gets_its_verdict(item):
    """What must fail fails, what must be undefined is, and everything else holds."""
    record, expect = judged(item), item["expect"]
    fails = {name for name, (top, bottom) in record.counts.items() if top < bottom}
    undefined = {name for name, (_, bottom) in record.counts.items() if not bottom}
    assert fails == set(expect["fails"]), record.reasons
    # A basic row that states a confidence has the bound, too.
    assert undefined - CIC_ONLY == set(expect["undefined"]) - CIC_ONLY
    assert undefined >= set(expect["undefined"])
    assert any(expect["reason"] in reason for reason in record.reasons) or not expect["reason"]
    assert expect.get("how", "as is") == (record.parsed.how or "as is")
    assert bool(record.reasons) == bool(fails)
    for name in METRICS:  # strictly, an output that is not JSON has no object
        top, bottom = strict_counts(record, name)
        assert (top, bottom) == record.counts[name] if record.parsed.strict else top == 0
    json.dumps(record.to_json(), allow_nan=False, ensure_ascii=False).encode()


def cases(right: bool) -> list:
    return [pytest.param(item, id=item["id"]) for item in OTHERS if item["right"] is right]


@pytest.mark.parametrize("item", cases(right=False))
def test_a_false_answer_of_others_does_not_pass(item):
    record = judged(item)
    assert record.counts["all_right"] == (0, 1)
    assert record.reasons


@pytest.mark.parametrize("item", cases(right=True))
def test_a_right_answer_of_others_passes_or_is_said_to_be_unread(item):
    record = judged(item)
    assert (record.counts["all_right"] == (1, 1)) == (not record.unread), record.reasons
    assert [reason for reason in record.reasons if not UNREAD.fullmatch(reason)] == []
    assert [number for number in record.findings if number.metric and not number.ok] == []


def test_right_answers_of_others_are_read_as_often_as_before():
    assert sum(judged(item).counts["all_right"] == (1, 1) for item in OTHERS if item["right"]) >= READ


def test_the_red_team_covers_both_kinds_and_every_metric():
    assert len({item["id"] for item in ITEMS + OTHERS}) == len(ITEMS + OTHERS) == len(LINES) - len(ROWS)
    assert len(ITEMS) > 100
    assert {item["row"] for item in ITEMS} == {"basic", "cic"}
    failing = {name for item in ITEMS for name in item["expect"]["fails"]}
    assert failing == set(METRICS)
    assert sum(not item["expect"]["fails"] for item in ITEMS) >= 5  # right answers, written in another way
    # "others-h": by a reader who knew the rules, and looked for holes.
    blind = [item for item in OTHERS if not item["id"].startswith("others-h")]
    assert len(blind) >= 150
    assert 3 * sum(item["right"] for item in blind) >= len(blind)
    assert {item["row"] for item in OTHERS} == set(ROWS)


def test_the_nations_are_those_of_both_worlds():
    assert set(world.CIC_COUNTRIES) == set(NATIONS.values())


@cache
def targets() -> list[tuple[str, str, Record]]:
    examples = [Example.of(dataset.row(kind, 23, index)) for kind in dataset.KINDS for index in range(120)]
    return [(each.prompt, each.answer, judge("x", each.prompt, each.answer, each.answer)) for each in examples]


def test_no_changed_digit_is_missed():
    """Recall must fall, and a number be wrong or not read, unless it is a threshold: the count may hold of another."""
    pick = random.Random(7)
    for _ in range(1000):
        prompt, answer, before = pick.choice(targets())
        changed = change_digit(answer, pick)
        after = judge("x", prompt, answer, changed)
        recalled = [sum(r.counts[name][0] for name in ("numeric_recall", "derived_recall")) for r in (before, after)]
        wrong = [found for found in after.findings if not found.ok and found.metric]
        assert recalled[1] < recalled[0], changed
        assert wrong or after.unread or THRESHOLD.findall(changed) != THRESHOLD.findall(answer), changed
        assert after.counts["all_right"] == (0, 1), changed


def figures(answer: str) -> set[float]:
    return set(map(float, NUMBER.findall(" ".join(json.loads(answer).values()))))


def test_no_damage_crashes_and_none_passes_that_changes_a_figure():
    pick = random.Random(8)
    for _ in range(1500):
        prompt, answer, _ = pick.choice(targets())
        output = damage(answer, pick)
        record = judge("x", prompt, answer, output)
        assert record.counts.keys() == METRICS.keys()
        assert all(0 <= top <= bottom for top, bottom in record.counts.values())
        assert (record.counts["all_right"] == (0, 1)) == bool(record.reasons)
        assert record.reasons or figures(output) == figures(answer)
        json.dumps(record.to_json(), allow_nan=False, ensure_ascii=False).encode()


TEXTS = st.text() | st.lists(st.sampled_from([unit for unit in ENDLESS if '"' not in unit])).map("".join)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_any_texts_are_judged(data):
    prompt, answer, _ = data.draw(st.sampled_from(targets()[::40]))
    texts = json.loads(answer)
    for key in data.draw(st.lists(st.sampled_from(sorted(texts)), max_size=3)):
        texts[key] = data.draw(TEXTS | st.none() | st.floats() | st.lists(TEXTS) | st.dictionaries(TEXTS, TEXTS))
    record = judge("x", prompt, answer, json.dumps(texts))
    assert all(0 <= top <= bottom for top, bottom in record.counts.values())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("unit", ENDLESS)
def test_endless_repetitions_end(unit):
    """Quadratic time would take hours; that it is linear is measured by `make soak`."""
    prompt, answer, _ = targets()[-1]
    for key in (None, "summary", "phase_assessment"):
        record = judge("x", prompt, answer, endless(unit, 60_000, key))
        assert record.counts["all_right"] == (0, 1)
