"""The figures: right answers score 1.0, every fault lowers the figure that it should, intervals are what they say."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elle.base.errors import ElleError
from elle.briefings import dataset
from elle.evaluation import cost
from elle.evaluation.failures import failure_html
from elle.evaluation.scorecard import METRICS, score
from elle.evaluation.statistics import Estimate, clustered_ratio, mean, wilson


def target(row: dict) -> str:
    return row["conversations"][2]["value"]


#: Undefined on basic rows, which print no such figures.
CIC_ONLY = {"arithmetic", "epistemic_bound", "phase"}
ROWS = [dataset.row("basic", 11, index) | {"id": f"t-{index}"} for index in range(40)]
TARGETS = {row["id"]: target(row) for row in ROWS}
ROW = next(row for row in ROWS if len(re.findall("[A-Z]{3} [0-9]+%", target(row))) > 1)


def one(output: str):
    return score([ROW], {ROW["id"]: output})


@pytest.mark.parametrize(("kind", "count", "undefined"), [("basic", 2000, CIC_ONLY), ("cic", 256, set())])
def test_untouched_targets_score_one_everywhere(kind, count, undefined):
    rows = [dataset.row(kind, 4, index) for index in range(count)]
    card = score(rows, {row["id"]: target(row) for row in rows})
    assert {name for name, each in card.metrics.items() if each.n == 0} == undefined
    assert {card.metrics[name].value for name in METRICS.keys() - undefined} == {1.0}
    assert all(card.metrics[name].low < card.metrics[name].high == 1.0 for name in METRICS.keys() - undefined)
    assert not any(record.reasons for record in card.records)
    assert all(list(record.counts) == list(METRICS) for record in card.records)
    assert card.strict == card.metrics


def test_counts_pool_and_missing_outputs_count_as_failures():
    card = score(ROWS, {key: text for key, text in TARGETS.items() if key != "t-3"})
    assert card.metrics["json_strict"].value == pytest.approx(39 / 40)
    recall, counts = card.metrics["numeric_recall"], [record.counts["numeric_recall"] for record in card.records]
    assert recall.n == sum(bottom for _, bottom in counts)
    assert recall.low < recall.value == sum(top for top, _ in counts) / recall.n < recall.high
    assert card.metrics["numeric_precision"].value == 1.0
    coverage = card.to_json()["coverage"]
    assert (coverage["rows"], coverage["outputs"]) == (40, 39)
    assert coverage["judged"]["numeric_recall"] == 40
    assert coverage["judged"]["arithmetic"] == 0  # basic rows
    assert card.worst(1)[0].reasons == ("not strictly JSON: no output",)


def test_the_worst_come_first():
    faulty = {"t-1": "no", "t-5": TARGETS["t-5"][:-1] + ',"x":"1"}', "t-7": re.sub(r"\d", "7", TARGETS["t-7"])}
    assert [(record.id, record.output) for record in score(ROWS, TARGETS | faulty).worst()] == [*faulty.items()]


def test_what_is_not_read_is_neither_right_nor_wrong():
    before = one(target(ROW)).metrics
    after = one(target(ROW)[:-2] + ' Also 7 of them. Unrest grew."}').metrics
    assert (before["read"].value, before["read"].n + 3) == (1.0, after["read"].n)  # a number and two sentences
    assert after["read"].value == pytest.approx(before["read"].n / after["read"].n)
    assert {name for name in METRICS if after[name].value != before[name].value} == {"read", "all_right"}


def test_the_documentation_defines_every_metric():
    page = (Path(__file__).resolve().parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in (*METRICS, *cost.FIELDS))


@pytest.mark.parametrize(
    ("rows", "outputs", "what"),
    [
        ([], {}, "empty"),
        ([ROW, ROW], {}, "occurs twice"),
        ([ROW], {"stranger": ""}, "belong to no row"),
        ([ROW], {ROW["id"]: 3}, "must be text"),
        ([{"id": "a"}], {}, "not in the project's format"),
        ([{"id": "a", "conversations": [{"from": "human", "value": "hi"}, ROW["conversations"][2]]}], {}, "prompt"),
        ([{"id": "a", "conversations": [ROW["conversations"][1], {"from": "gpt", "value": "x"}]}], {}, "reference"),
    ],
)
def test_bad_input(rows, outputs, what):
    with pytest.raises(ElleError, match=what) as error:
        score(rows, outputs)
    assert error.value.fix
    assert error.value.where or not rows


@settings(max_examples=300, deadline=None)
@given(
    st.text()
    | st.dictionaries(st.sampled_from(["political", "nsm", "x"]), st.text("UKR 0123456789.,%-tone\n")).map(json.dumps)
)
def test_any_output_is_scored_and_shown(output):
    card = one(output)
    assert card.metrics["all_right"].value == 0.0
    assert all(e.value is None or 0 <= e.low <= e.value <= e.high <= 1 for e in card.metrics.values())
    json.dumps(card.to_json(), allow_nan=False, ensure_ascii=False).encode()
    assert failure_html(card.records[0].to_json())


def test_the_page_marks_wrong_numbers_and_escapes_the_rest():
    attack = "<script>alert(1)</script>"
    output = json.dumps(json.loads(target(ROW)) | {"political": f'{attack} political 999 "', attack: "x"})
    page = failure_html(one(output).records[0].to_json())
    assert page.count("<mark") == 2  # the 1 of alert(1) and the 999
    assert ">999</mark>" in page
    assert "<script" not in page
    assert "<script" not in failure_html(one(attack).records[0].to_json())
    assert "<mark" not in failure_html(one(target(ROW)).records[0].to_json())
    assert len(failure_html(one("x" * 900_000).records[0].to_json())) < 30_000


def test_wilson_closed_form():
    z2 = 1.959963984540054**2
    assert wilson(200, 200).low == pytest.approx(200 / (200 + z2))  # p = 1: the bound is n / (n + z²)
    assert wilson(0, 0).value is wilson(0, 0).low is None
    with pytest.raises(ValueError, match="successes"):
        wilson(3, 2)


def test_the_bootstrap_covers():
    bottom = np.full(300, 15)
    top = np.random.default_rng(0).binomial(bottom, 0.9)
    first = clustered_ratio(top, bottom, np.random.default_rng(7))
    # Independent numbers: the width is that of a proportion of 4,500 trials; all right or all wrong: of 300.
    assert first.high - first.low == pytest.approx(2 * 1.96 * (0.9 * 0.1 / 4500) ** 0.5, rel=0.15)
    clustered = clustered_ratio(np.where(np.arange(300) < 270, 15, 0), bottom, np.random.default_rng(7))
    assert clustered.high - clustered.low == pytest.approx(2 * 1.96 * (0.9 * 0.1 / 300) ** 0.5, rel=0.15)

    values = np.random.default_rng(0).normal(size=400)
    found = mean(values, np.random.default_rng(1))
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_bootstrap_edges():
    rng = np.random.default_rng(0)
    assert clustered_ratio([0, 0], [0, 0], rng).value is None
    assert mean([5.0], rng) == Estimate(5.0, 1, 5.0, 5.0)
    perfect = clustered_ratio([15] * 200 + [0], [15] * 200 + [0], rng)
    assert (perfect.value, perfect.n, perfect.low) == (1.0, 3000, wilson(200, 200).low)
    with pytest.raises(ValueError, match="numerator"):
        clustered_ratio([2], [1], rng)


def test_what_a_request_took():
    line = {"output": "x", "prompt_tokens": 1500, "completion_tokens": 700, "seconds": 2.0}
    lines = [line, line | {"seconds": 4.0}, line | {"output": None, "seconds": 99.0}, {"output": "y", "seconds": "1"}]
    found = cost.request_means(lines)
    assert (found["seconds"].value, found["seconds"].n) == (3.0, 2)
    assert 2.0 <= found["seconds"].low <= found["seconds"].high <= 4.0
    assert set(cost.request_means([{"output": "x"}]).values()) == {None}
    assert cost.request_means([{"output": "x", "seconds": 10**400}])["seconds"] is None
    assert cost.per_hour(3.6, 1000, 500) == pytest.approx(0.002)
