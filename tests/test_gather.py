"""Where errors gather, the browser of failures, and the evaluation's figures and tables."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elle.briefings import dataset
from elle.briefings.metrics import parse
from elle.evaluation.compare import compare, differences_text
from elle.evaluation.gather import NATION, UNREAD, _binned, errors_by
from elle.evaluation.scorecard import figures_text, score
from elle.evaluation.statistics import wilson
from helpers import plots
from helpers.course import browser

ROWS = {kind: [dataset.row(kind, 8, index) for index in range(40)] for kind in dataset.KINDS}


def right(kind: str) -> dict[str, str]:
    return {row["id"]: row["conversations"][2]["value"] for row in ROWS[kind]}


def records(kind: str, outputs: dict[str, str]):
    return score(ROWS[kind], outputs).records


def nations(row: dict) -> int:
    return len(parse(row["conversations"][1]["value"]).nations)


@pytest.mark.parametrize("kind", dataset.KINDS)
def test_right_answers_have_no_errors_anywhere(kind):
    found = errors_by(records(kind, right(kind)))
    assert list(found) == ["metric", *(["phase"] if kind == "cic" else []), "nations", "length"]
    assert all(share.value == 0 for gathering in found.values() for share in gathering.groups.values())
    for name in found.keys() - {"metric"}:
        assert sum(share.n for share in found[name].groups.values()) == 40
    assert UNREAD not in found["metric"].groups
    assert NATION in found["metric"].groups


def test_a_wrong_metric_is_found_and_the_worst_comes_first():
    outputs = {name: re.sub(r"tone (-?)\d", r"tone \g<1>9", text) for name, text in right("basic").items()}
    found = errors_by(records("basic", outputs))["metric"]
    assert next(iter(found.groups)) == "tone"
    assert found.groups["tone"].value > 0.8
    assert all(share.value == 0 for name, share in found.groups.items() if name != "tone")


def test_numbers_that_are_not_read_are_no_metrics_errors():
    outputs = {name: text[:-2] + ' Also 7 of them."}' for name, text in right("basic").items()}
    judged = records("basic", outputs)
    *others, (last, unread) = errors_by(judged)["metric"].groups.items()
    assert (last, unread.n) == (UNREAD, sum(len(record.findings) for record in judged))
    assert unread.value == pytest.approx(40 / unread.n)
    assert [share.value for _, share in others] == [0] * len(others)
    assert all(share.value == 1 for share in errors_by(judged)["length"].groups.values())  # no briefing is all right


def test_errors_by_nations_and_phase_are_those_of_the_prompt():
    many = {row["id"] for row in ROWS["basic"] if nations(row) > 3}
    outputs = {name: "no" if name in many else text for name, text in right("basic").items()}
    found = errors_by(records("basic", outputs))["nations"].groups
    assert list(found) == sorted(found)
    for count, share in found.items():
        of = sum(nations(row) == int(count) for row in ROWS["basic"])
        assert share == wilson(of if int(count) > 3 else 0, of)
    phases = {row["id"]: parse(row["conversations"][1]["value"]).cic.phase or "undefined" for row in ROWS["cic"]}
    outputs = {name: "no" if phases[name] == "PLASMA" else text for name, text in right("cic").items()}
    found = errors_by(records("cic", outputs))["phase"].groups
    assert found.keys() == set(phases.values())
    assert {name: share.value for name, share in found.items()} == {name: float(name == "PLASMA") for name in found}


def test_missing_answers_are_wrong_and_have_no_length():
    outputs = right("basic")
    gone = [outputs.popitem()[0] for _ in range(5)]
    found = errors_by(records("basic", outputs))
    assert sum(share.n for share in found["length"].groups.values()) == 35
    assert sum(round(share.value * share.n) for share in found["nations"].groups.values()) == len(gone)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2000), min_size=1, max_size=60), st.integers(1, 6))
def test_bins_hold_what_their_names_say(lengths, bins):
    labels = _binned(lengths, bins)
    assert len(labels) == len(lengths)
    assert len(set(labels)) <= bins
    ends = {label: [int(end.replace(",", "")) for end in label.split("–")] for label in labels}
    for length, label in zip(lengths, labels, strict=True):
        assert ends[label][0] <= length <= ends[label][1]
    ordered = sorted(ends.values())
    assert all(before[1] < after[0] for before, after in pairwise(ordered))


def test_nothing_to_sort():
    assert errors_by([]) == {}
    assert _binned([], 4) == []


def flawed(kind: str) -> dict[str, str]:
    """Answers of which a third has one fault of several kinds; one of a kind that no other has."""
    rng = np.random.default_rng(1)
    outputs = {
        name: re.sub(r"\d", lambda m: "3" if rng.random() < 0.1 else m[0], text) if place % 3 else text
        for place, (name, text) in enumerate(right(kind).items())
    }
    outputs[ROWS[kind][7]["id"]] = "<script>alert(1)</script>"
    return outputs


def test_the_browser_counts_all_shows_some_and_runs_nothing():
    judged = records("basic", flawed("basic"))
    page = browser.html(judged)
    assert "<title>&lt;b&gt;</title>" in browser.page(judged, title="<b>")
    assert browser.html(records("basic", right("basic"))).startswith("<p>0 of 40 outputs have a fault")
    found = browser.kinds(judged)
    failing = {record.id for faulty in found.values() for record in faulty}
    assert f"<p>{len(failing)} of 40 outputs have a fault" in page
    for name, faulty in found.items():
        assert f"<strong>{name}</strong>: {len(faulty)} of 40 outputs fall short" in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"(src|href)=|url\(|@import", page)
    assert page.count("<details") == page.count("</details>")
    shown = re.findall(r"<details style[^>]*><summary>(basic-8-\d+):", page)
    assert len(shown) == len(set(shown)) > 5
    assert ROWS["basic"][7]["id"] in shown  # the rare kind is not crowded out


@pytest.mark.parametrize("budget", [3_000, 12_000, 60_000])
def test_the_browser_keeps_to_its_budget(budget):
    page = browser.html(records("cic", flawed("cic")), budget=budget)
    assert len(json.dumps(page, ensure_ascii=False).encode()) <= budget
    assert browser.html(records("cic", flawed("cic")), limit=2).count("<details style") == 2


def texts(figure) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_the_figure_of_errors_names_units_groups_and_n():
    judged = records("cic", flawed("cic"))
    found = errors_by(judged)
    said = texts(plots.evaluation.error_map(found))
    for text in ("wrong numbers", "wrong briefings", "nations", "characters", "95 % interval", "PLASMA"):
        assert text in said
    for label, share in (each for name in ("phase", "nations", "length") for each in found[name].groups.items()):
        assert label in said
        assert f"n = {share.n}" in said
    unread = found["metric"].groups[UNREAD]
    assert f"not read, and so in no bar: {unread.value:.1%} of {unread.n:,} numbers" in said
    assert "length" not in texts(plots.evaluation.error_map({"nations": found["nations"]}))


def test_differences_as_figure_and_as_text():
    good, bad = score(ROWS["basic"], right("basic")), score(ROWS["basic"], flawed("basic"))
    found = compare(bad, good)
    said = texts(plots.evaluation.differences(found, "old", "new"))
    assert "new against old, 40 briefings" in said
    assert f"p = {found.metrics['json_strict'].p_holm:.2g}" in said
    assert re.search(r"json_strict +0\.9750 +1\.0000 +\+0\.0250", differences_text(found, "old", "new"))
    assert "undefined" in figures_text(score(ROWS["basic"], {}))
