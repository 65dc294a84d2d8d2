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
from elle.evaluation.statistics import clustered_ratio, mean, wilson


def target(row: dict) -> str:
    return row["conversations"][2]["value"]


#: Undefined on basic rows, which print no such figures.
CIC_ONLY = {"arithmetic", "epistemic_bound", "phase"}
ROWS = [dataset.row("basic", 11, index) | {"id": f"t-{index}"} for index in range(40)]
TARGETS = {row["id"]: target(row) for row in ROWS}
ROW = next(row for row in ROWS if len(re.findall("[A-Z]{3} [0-9]+%", target(row))) > 1)


def one(output: str | None):
    return score([ROW], {} if output is None else {ROW["id"]: output})


def values(card) -> dict[str, float | None]:
    return {name: estimate.value for name, estimate in card.metrics.items()}


@pytest.mark.parametrize(("kind", "count", "undefined"), [("basic", 2000, CIC_ONLY), ("cic", 256, set())])
def test_untouched_targets_score_one_everywhere(kind, count, undefined):
    rows = [dataset.row(kind, 4, index) for index in range(count)]
    card = score(rows, {row["id"]: target(row) for row in rows})
    assert list(card.metrics) == list(METRICS)
    assert {name for name, each in card.metrics.items() if each.n == 0} == undefined
    assert {card.metrics[name].value for name in METRICS.keys() - undefined} == {1.0}
    assert all(card.metrics[name].low < card.metrics[name].high == 1.0 for name in METRICS.keys() - undefined)
    assert not any(record.reasons for record in card.records)
    assert all(list(record.counts) == list(METRICS) for record in card.records)
    assert card.strict == card.metrics


def test_no_numbers_is_recall_zero_and_no_precision():
    card = one(re.sub(r"-?[0-9]+(\.[0-9])?%?", "some", target(ROW)))
    assert values(card)["schema"] == 1.0
    assert card.metrics["numeric_recall"].value == 0.0
    assert (card.metrics["numeric_precision"].value, card.metrics["numeric_precision"].n) == (None, 0)
    assert card.metrics["derived_accuracy"].n == 0
    assert card.metrics["all_right"].value == 0.0


@pytest.mark.parametrize(
    ("output", "strict", "lenient"),
    [
        (f"```json\n{target(ROW)}\n```", 0, 1),
        (f"{target(ROW)} Done.", 0, 1),
        (target(ROW)[:-20], 0, 0),
        (target(ROW)[:-1] + ',"nsm":"again"}', 0, 0),
        (None, 0, 0),
    ],
)
def test_compliance(output, strict, lenient):
    found = values(one(output))
    assert (found["json_strict"], found["json_lenient"]) == (strict, lenient)
    assert (found["schema"], found["schema_lenient"]) == (strict, lenient)
    assert found["numeric_recall"] == found["risk_words"] == lenient
    assert found["numeric_precision"] == (1.0 if lenient else None)
    assert found["all_right"] == 0


def test_each_fault_lowers_its_own_figure():
    answer = json.loads(target(ROW))

    def changed(**texts: str) -> dict[str, float | None]:
        return {k for k, v in values(one(json.dumps(answer | texts))).items() if v != 1.0} - CIC_ONLY

    number = int(re.search(r"political (\d+)", answer["political"])[1])
    other = answer["political"].replace(str(number), str(number / 100))
    assert changed(political=other) == {"numeric_precision", "numeric_recall", "all_right"}
    index = re.search(r"index (\d+)", answer["financial"])[1]
    other = answer["financial"].replace(f"index {index}", f"index {int(index) + 1}")
    assert changed(financial=other) == {"derived_accuracy", "derived_recall", "all_right"}
    other = "The political picture is good" + answer["political"][answer["political"].index(":") :]
    assert "risk_words" in changed(political=other)
    year = {"numeric_precision", "fabrication", "fabrication_lenient", "all_right"}
    assert changed(nsm=answer["nsm"] + " By 2031.") == year
    assert changed(nsm=answer["nsm"] + " Twice 12.") == {"numeric_precision", "fabrication", "all_right"}
    assert changed(nsm=answer["nsm"] + " It holds.") == {"fabrication"}  # a name by the strict reading only
    assert changed(nsm=3) >= {"schema", "schema_lenient", "numeric_precision"}
    assert changed(extra="x") == {"schema", "schema_lenient", "all_right"}
    assert changed(political=answer["economic"], economic=answer["political"]) >= {"numeric_recall"}


def test_counts_pool_and_missing_outputs_count_as_failures():
    card = score(ROWS, {key: text for key, text in TARGETS.items() if key != "t-3"})
    assert card.metrics["json_strict"].value == pytest.approx(39 / 40)
    recall = card.metrics["numeric_recall"]
    triples = [record.counts["numeric_recall"] for record in card.records]
    assert recall.n == sum(bottom for _, bottom in triples)
    assert recall.value == sum(top for top, _ in triples) / recall.n < 1
    assert recall.low < recall.value < recall.high
    assert card.metrics["numeric_precision"].value == 1.0
    coverage = card.to_json()["coverage"]
    assert (coverage["rows"], coverage["outputs"]) == (40, 39)
    assert coverage["judged"]["numeric_recall"] == 40
    assert coverage["judged"]["arithmetic"] == 0  # basic rows
    assert card.worst(1)[0].id == "t-3"
    assert card.worst(1)[0].reasons == ("not strictly JSON: no output",)


def test_the_documentation_defines_every_metric():
    page = (Path(__file__).resolve().parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in (*METRICS, *cost.FIELDS))


def test_strictly_an_output_in_a_fence_has_no_object():
    card = score(ROWS, TARGETS | {"t-3": f"```json\n{TARGETS['t-3']}\n```"})
    assert card.metrics["numeric_recall"].value == card.metrics["risk_words"].value == 1.0
    assert card.strict["risk_words"].value == pytest.approx(39 / 40)
    assert card.strict["numeric_recall"].value < 1.0
    assert card.strict["json_lenient"] == card.metrics["json_strict"]
    assert card.strict["schema_lenient"] == card.metrics["schema"]
    inside = len(card.records[3].findings)
    both = [cards["numeric_precision"].n + cards["derived_accuracy"].n for cards in (card.metrics, card.strict)]
    assert both[0] - both[1] == inside
    assert (card.metrics["fabrication"].n, card.strict["fabrication"].n) == (40, 39)
    assert card.to_json()["strict"]["risk_words"]["value"] == pytest.approx(39 / 40)


def test_the_worst_come_first_and_verbatim():
    outputs = TARGETS | {
        "t-1": "no",
        "t-5": TARGETS["t-5"][:-1] + ',"x":"1"}',
        "t-7": re.sub(r"\d", "7", TARGETS["t-7"]),
    }
    worst = score(ROWS, outputs).worst()
    assert [record.id for record in worst] == ["t-1", "t-5", "t-7"]
    assert [record.output for record in worst] == [outputs[record.id] for record in worst]
    assert all(record.reasons for record in worst)
    assert len(score(ROWS, outputs).worst(99)) == 40


def test_json_is_strict_and_the_same_for_the_same_seed():
    outputs = TARGETS | {"t-1": "\ud800 <b>", "t-2": re.sub(r"\d", "1", TARGETS["t-2"])}
    card = score(ROWS, outputs, seed=5)
    text = json.dumps(card.to_json(), allow_nan=False, ensure_ascii=False)
    text.encode()
    assert json.dumps(score(ROWS, outputs, seed=5).to_json(), allow_nan=False, ensure_ascii=False) == text
    assert score(ROWS, outputs, seed=6).metrics["numeric_precision"] != card.metrics["numeric_precision"]
    json.dumps([record.to_json() for record in card.records], allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("rows", "outputs", "what"),
    [
        ([], {}, "empty"),
        ([ROW, ROW], {}, "occurs twice"),
        ([ROW], {"stranger": ""}, "belong to no row"),
        ([ROW], {ROW["id"]: 3}, "must be text"),
        ([{"id": "a"}], {}, "not in the project's format"),
        ([{"conversations": ROW["conversations"]}], {}, "not in the project's format"),
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


def test_bootstrap_is_deterministic_and_covers():
    bottom = np.full(300, 15)
    top = np.random.default_rng(0).binomial(bottom, 0.9)
    first = clustered_ratio(top, bottom, np.random.default_rng(7))
    assert first == clustered_ratio(top, bottom, np.random.default_rng(7))
    assert first != clustered_ratio(top, bottom, np.random.default_rng(8))
    # Independent numbers: the width is that of a proportion of 4,500 trials; all right or all wrong: of 300.
    assert first.high - first.low == pytest.approx(2 * 1.96 * (0.9 * 0.1 / 4500) ** 0.5, rel=0.15)
    clustered = clustered_ratio(np.where(np.arange(300) < 270, 15, 0), bottom, np.random.default_rng(7))
    assert clustered.high - clustered.low == pytest.approx(2 * 1.96 * (0.9 * 0.1 / 300) ** 0.5, rel=0.15)


def test_bootstrap_edges():
    rng = np.random.default_rng(0)
    assert clustered_ratio([], [], rng).value is None
    assert clustered_ratio([0, 0], [0, 0], rng).n == 0
    perfect = clustered_ratio([15] * 200 + [0], [15] * 200 + [0], rng)
    assert (perfect.value, perfect.n, perfect.low) == (1.0, 3000, wilson(200, 200).low)
    with pytest.raises(ValueError, match="numerator"):
        clustered_ratio([2], [1], rng)


def test_the_bootstrap_of_a_mean():
    values = np.random.default_rng(0).normal(size=400)
    found = mean(values, np.random.default_rng(1))
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    one = mean([5.0], np.random.default_rng(1))
    assert (one.value, one.low, one.high, one.n) == (5.0, 5.0, 5.0, 1)


def test_what_a_request_took():
    line = {"output": "x", "prompt_tokens": 1500, "completion_tokens": 700, "seconds": 2.0}
    lines = [line, line | {"seconds": 4.0}, line | {"output": None, "seconds": 99.0}, {"output": "y", "seconds": "1"}]
    found = cost.request_means(lines)
    assert (found["seconds"].value, found["seconds"].n) == (3.0, 2)
    assert 2.0 <= found["seconds"].low <= found["seconds"].high <= 4.0
    assert set(cost.request_means([{"output": "x"}]).values()) == {None}
    assert cost.request_means([{"output": "x", "seconds": 10**400}])["seconds"] is None
    assert cost.per_hour(3.6, 1000, 500) == pytest.approx(0.002)
