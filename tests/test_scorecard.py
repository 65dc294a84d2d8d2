"""The figures: right answers score 1.0, every fault lowers the figure that it should, intervals are what they say."""

import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elle.base.errors import ElleError
from elle.briefings import dataset
from elle.evaluation import cost
from elle.evaluation.failures import failure_html, faults_text
from elle.evaluation.scorecard import METRICS, figures_text, score
from elle.evaluation.statistics import Estimate, clustered_ratio, mean, wilson
from helpers.course import browser


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


def marks(page: str) -> list[tuple[str, str]]:
    """(title, text) of a page's marks; none may stand in another."""
    found = re.findall(r'<mark style="[^"<>]*" title="([^"<>]*)">([^<]*)</mark>', page)
    assert len(found) == page.count("<mark") == page.count("</mark>")
    return [(unescape(title), unescape(text)) for title, text in found]


def test_the_page_marks_wrong_numbers_and_what_is_not_read_and_escapes_the_rest():
    attack = "<script>alert('&')</script>"
    text = f'political 999, {attack} of 7 "'
    page = failure_html(
        one(json.dumps(json.loads(target(ROW)) | {"political": text, attack: "1"})).records[0].to_json()
    )
    risk = re.search(r"political (\d+)", target(ROW))[1]
    wrong, *unread = marks(page)
    assert wrong == (f"political is {risk}", "999")
    assert [title for title, _ in unread] == ["not read"] * len(unread)
    assert "".join(text for _, text in unread).startswith("<script>alert'&'</script>")  # parentheses part clauses
    assert len(set(re.findall('<mark style="([^"]*)"', page))) == 2  # told apart, and not by colour alone
    assert "underline wavy" in page
    assert "underline dotted" in page
    assert "<script" not in page
    assert "<script" not in failure_html(one(attack).records[0].to_json())
    assert "<mark" not in failure_html(one(target(ROW)).records[0].to_json())
    assert len(failure_html(one("x" * 900_000).records[0].to_json())) < 30_000


def test_marks_that_overlap_do_not_nest_and_a_wrong_number_is_on_top():
    number = {"key": "k", "start": 4, "end": 6, "text": "40", "metric": "political", "ok": False, "why": 'is "<50>"'}
    found = {"findings": [number, number | {"start": 9, "end": 11, "metric": None, "why": "not read"}]}
    record = {"id": "x", "prompt": "p", "output": "o", "reasons": [], "texts": {"k": "a & 40 < 50 b"}} | found
    for unread, expected in (
        ([(2, 11)], [("not read", "& "), ('is "<50>"', "40"), ("not read", " < 50")]),  # around it
        ([(0, 5), (5, 13)], [("not read", "a & "), ('is "<50>"', "40"), ("not read", " < 50 b")]),  # across it
        ([(6, 9), (99, 120)], [('is "<50>"', "40"), ("not read", " < ")]),  # beside it; beyond the text
    ):
        page = failure_html(record | {"unread": [{"key": "k", "start": a, "end": b} for a, b in unread]})
        assert marks(page) == expected
        assert "a & 40 < 50 b" in unescape(re.sub("<[^>]*>", "", page))
    assert marks(failure_html(record)) == [('is "<50>"', "40")]  # an earlier version's record has no unread parts


def test_a_line_for_a_terminal_commands_nothing():
    codes = "\x1b[2J\x9b31m\u202e\u2066\r\n\x07\x7f\u200b\U000e0041"
    row, output = ROW | {"id": f"x{codes}"}, json.dumps(json.loads(target(ROW)) | {f"k{codes}": codes})
    card = score([row], {row["id"]: output})
    text = faults_text(card.records)
    assert all(line.isprintable() for line in text.split("\n"))
    assert text.startswith(r"x\x1b[2J\x9b31m\u202e\u2066\r\n\x07\x7f\u200b\U000e0041: ")
    assert r"extra: k\x1b[2J" in text
    assert len(text.split("\n")) == 1 + len(card.records[0].reasons)
    plain = json.dumps(json.loads(target(ROW)) | {"Φ · “x” – ü": "x"})
    assert "Φ · “x” – ü" in faults_text(one(plain).records)


def test_a_key_that_an_output_repeats_is_in_no_record_and_on_no_page(monkeypatch):
    key, texts = "s3cr3t-value-40", json.loads(target(ROW))
    output = json.dumps(texts | {"political": f"Key {key}, political 7."})
    named = one(output.replace(key, "$ELLE_API_KEY")).records[0].to_json()
    monkeypatch.setenv("ELLE_API_KEY", key)
    for text in (output, output.replace('"political"', f'"{key}"'), key, f"{key} {output}"):
        record = one(text).records[0]
        kept = record.to_json()
        shown = repr(record), json.dumps(kept), failure_html(kept), browser.page([record]), faults_text([record])
        assert not [each for each in shown if key in each]
        assert "$ELLE_API_KEY" in shown[1]
    assert one(output).records[0].to_json() == named  # positions are those of the text that is shown
    for word in ("x", "1", "none", "EMPTY"):  # keys for servers that ask for none: words of any text
        monkeypatch.setenv("ELLE_API_KEY", word)
        assert one(target(ROW)).metrics["all_right"].value == 1


def test_the_figures_say_how_much_was_read():
    faulty = TARGETS | {"t-3": TARGETS["t-3"].replace('"nsm":"', '"nsm":"Something else in 40 words. ')}
    del faulty["t-5"]
    counts = [record.counts["read"] for record in score(ROWS, faulty).records]
    read, every = (sum(each) for each in zip(*counts, strict=True))
    assert every == read + 2  # a sentence and its number
    said = f"39 of 40 rows have an output; {read:,} of their {every:,} numbers and sentences were read"
    assert said in figures_text(score(ROWS, faulty))
    assert "read:" not in figures_text(score(ROWS, {}))


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
