"""The stacking experiment: sums whose every step is true, assessments that are the CIC set's own, sets without leaks,
scores that can fail, and statements judged by their intervals."""

import json
import re
from decimal import Decimal

import numpy as np
import pytest
import qwen_tokens
import stacked
from hypothesis import given
from hypothesis import strategies as st

from elle.base import paths, storage
from elle.base.errors import ElleError
from elle.briefings import dataset
from elle.briefings.cic_figures import DERIVED, CicFigures, parse_lines
from elle.evaluation.compare import yes_or_no
from elle.evaluation.inputs import read_outputs
from elle.plan import budget
from experiments import stacking
from experiments.stacking import batch
from experiments.stacking import curriculum as sets
from experiments.stacking.scores import Scores, across, adds_up, final, judge, printed, score, verdict

HEAD = re.compile(r"(-?)\((\d\.\d{3})([+-])(\d\.\d{3})\)")
STEP = re.compile(r"(1?)(\d)[+-](\d)([+-]1)?=(\d\d?)")


def exact(problem):
    """The result by decimal arithmetic: an oracle that knows nothing of digits and carries."""
    left, operator, right = problem.split()
    return Decimal(left) + Decimal(right) * (1 if operator == "+" else -1)


@given(st.integers(-4999, 4999), st.sampled_from("+-"), st.integers(0, 4999))
def test_a_sum_is_worked_out_without_a_false_step(first, operator, second):
    if operator == "-":
        first = abs(first)
    problem = f"{Decimal(first).scaleb(-3)} {operator} {Decimal(second).scaleb(-3)}"
    head, *steps, result = sets.worked(problem).split(";")
    assert Decimal(result) == exact(problem)
    assert len(result.partition(".")[2]) == 3
    # The head says the same sum, in a difference the larger size first.
    sign, large, sign_within, small = HEAD.fullmatch(head).groups()
    assert sign_within == "+" or Decimal(large) >= Decimal(small)
    value = Decimal(large) + Decimal(sign_within + small)
    assert (-value if sign else value) == exact(problem)
    # Each step takes the next digits of both from the right, and what the one before it left.
    carry = ""
    for step, top, bottom in zip(steps, *(reversed(text.replace(".", "")) for text in (large, small)), strict=True):
        lent, *digits, behind, found = STEP.fullmatch(step).groups(default="")
        assert (*digits, behind) == (top, bottom, carry)
        assert int(lent + top) + int(sign_within + bottom) + int(carry or 0) == int(found) >= 0
        carry = sign_within + "1" if lent or len(found) == 2 else ""
    assert carry == ""
    digits = "".join(step[-1] for step in reversed(steps))
    assert Decimal(digits).scaleb(-3) == abs(exact(problem))


def test_products_are_those_of_an_assessment_and_only_trained_on():
    drawn = [(split, row) for (split, row), _ in zip(sets.rows("sums", 2), range(2000), strict=False)]
    products = [(split, *(t["value"] for t in row["conversations"][1:])) for split, row in drawn if "*" in str(row)]
    assert len(products) / len(drawn) == pytest.approx(sets.PRODUCTS, abs=0.04)
    for split, problem, answer in products:
        left, _, right = problem.split()
        figures = CicFigures(dict.fromkeys(("Φ", "H", "C", "agreement", "horizon"), Decimal(right)), None, "")
        assert (split, answer) == ("train", str(figures.derived["λH" if left == "0.3" else "γC"]))


@pytest.mark.parametrize("kind", ["sums", "plain"])
def test_a_set_is_the_same_however_it_is_made(kind, tmp_path):
    manifest = sets.build(kind, 300, 40, 5, tmp_path / "a")
    assert [facts["rows"] for facts in manifest["splits"].values()] == [300, sets.VALIDATION, 40]
    assert manifest["prompts_shared_between_splits"] == 0
    assert sets.build(kind, 300, 40, 5, tmp_path / "a") == manifest  # found made
    sets.build(kind, 600, 60, 5, tmp_path / "b")
    for split, count in (("train", 300), ("test", 40)):
        small, large = (dataset.read_split(tmp_path / name, split) for name in "ab")
        assert small == large[:count]  # whatever else was made
        prompts = [prompt for row in large if "*" not in (prompt := row["conversations"][1]["value"])]
        assert len(set(prompts)) == len(prompts)
    with pytest.raises(ElleError, match="another set"):
        sets.build(kind, 300, 40, 6, tmp_path / "a")


def test_both_sets_put_a_subtraction_into_the_same_split(tmp_path):
    """Else stage 1 would have trained on what the test of stage 2 asks."""
    split_of = {}
    for kind in ("sums", "plain"):
        for (split, row), _ in zip(sets.rows(kind, 9), range(3000), strict=False):
            prompt = row["conversations"][1]["value"]
            if kind == "plain":
                values = parse_lines(lines_of(prompt)).derived
                phi = prompt.partition("Φ ")[2].partition(",")[0]
                prompt = f"{phi} - {values['λH']}"
            elif "-" not in prompt[1:]:
                continue
            assert split_of.setdefault(prompt, split) == split
    assert set(split_of.values()) == set(dataset.SPLITS)


def lines_of(prompt):
    """The three lines of a CIC prompt that a short one stands for."""
    figures, outlook = prompt.split("\n")
    return [figures, "PHASE: none", f"{outlook}, analogue Black Death 1346–1353, distance 0.10"]


def test_an_assessments_answer_has_the_figures_that_follow_from_its_prompt():
    for (_, worked), (_, plain), _ in zip(sets.rows("worked", 3), sets.rows("plain", 3), range(600), strict=False):
        prompt, answer = (turn["value"] for turn in worked["conversations"][1:])
        derived = parse_lines(lines_of(prompt)).derived
        found = printed(answer)
        assert {name: found[name] for name in DERIVED} == {name: {str(derived[name])} for name in DERIVED}
        assert adds_up(found, found["Φ"])
        # Plain is the same question, and the same texts without the working; that ends in net and in F.
        texts = json.loads(answer)
        net, total = (sum_.rpartition(";")[2] for sum_ in texts.pop("working").split(" "))
        assert (net, total) == (str(derived["net"]), str(derived["F"]))
        assert plain["conversations"][1]["value"] == prompt
        assert json.loads(plain["conversations"][2]["value"]) == texts


@pytest.mark.parametrize("kind", ["sums", "worked"])
def test_the_planner_knows_the_lengths_of_the_sets(kind, tmp_path, qwen_base):
    sets.build(kind, 200, 1, 1, tmp_path)
    for base, sizes in ((str(qwen_base), ""), ("", "configs/nano_base.yaml")):
        counted, stated = qwen_tokens.lengths(tmp_path, 10, base, sizes), budget.find_data(kind, base, sizes=sizes)
        assert counted.keys() <= stated.lengths.keys()
        mean = sum(length * rows for length, rows in counted.items()) / 200
        assert mean == pytest.approx(stated.tokens / stated.examples, rel=0.05)


def test_the_page_of_results_is_that_of_its_figures():
    docs = paths.root() / "docs"
    assert stacked.page(storage.read_json(docs / "stacked.json")) == (docs / "stacked.md").read_text(encoding="utf-8")


def test_a_mixture_holds_its_shares(tmp_path):
    for kind in ("sums", "plain"):
        sets.build(kind, 200, 5, 1, tmp_path / kind)
    path = sets.mix({tmp_path / "plain": 1.0, tmp_path / "sums": 0.25}, tmp_path / "mix.jsonl", 1)
    kinds = [row["id"].partition("-")[0] for row in storage.read_lines(path)]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"plain": 200, "sums": 50}
    assert kinds != sorted(kinds)


def row_of(kind):
    return next(row for _, row in sets.rows(kind, 4) if "*" not in str(row))


def test_scores_count_what_is_right_and_nothing_else():
    sums, assessments = row_of("sums"), row_of("worked")
    said, assessed = (row["conversations"][2]["value"] for row in (sums, assessments))
    result = final(said)
    net = next(iter(printed(assessed)["net"]))
    wrong = said.removesuffix(result) + result[:-1] + str((int(result[-1]) + 1) % 10)
    for answer, right in ((said, True), (f" {said}\n", True), (wrong, False), (result, True), ("", False)):
        found = score([sums], {sums["id"]: answer}, [], {})
        assert found.sums.tolist() == [right], answer
        assert found.form.tolist() == [";" in answer]
    changed = assessed.replace(f"net {net}", "net 9.999", 1)
    doubled = assessed.replace(f"net {net}", f"net 9.999, net {net}", 1)
    for answer, right in (
        (assessed, set(DERIVED)), (changed, set(DERIVED) - {"net"}), (doubled, set(DERIVED) - {"net"}),
        (assessed[:-1], set()), ("[1]", set()), ('{"a": 1}', set()),
    ):  # fmt: skip
        found = score([], {}, [assessments], {assessments["id"]: answer})
        assert {name for name, each in found.figures.items() if each.all()} == right, answer
        assert found.gain.tolist() == [{"net", "F"} <= right]
    # Its own sums hold, though what it looked up is wrong.
    other = {"Φ": {"1.00"}, "λH": {"0.100"}, "net": {"0.900"}, "γC": {"0.050"}, "F": {"0.950"}}
    assert adds_up(other, {"1.00"})
    assert not adds_up(other, {"1.10"})
    for name in other:
        assert not adds_up(other | {name: {"0.123"}}, {"1.00"})
        assert not adds_up(other | {name: other[name] | {"0.123"}}, {"1.00"})


def scores_of(sums, gain):
    sums, gain = np.array(sums, bool), np.array(gain, bool)
    return Scores(sums, sums, gain, dict.fromkeys(DERIVED, gain))


def test_a_statement_is_judged_by_its_interval():
    good, bad = [1] * 95 + [0] * 5, [1] * 20 + [0] * 80
    assert verdict(yes_or_no(good, good), True, []) == "holds"
    assert verdict(yes_or_no(good, bad), True, []) == "does not hold"
    assert verdict(yes_or_no(bad, good), False, []) == "holds"
    assert verdict(yes_or_no(good[::10], good[::-10]), True, []) == "undecided"
    assert verdict(yes_or_no([1, 0], [0, 1]), False, []) == "undecided"
    assert verdict(yes_or_no(bad, good), False, [0.8, 0.7]) == "holds"
    assert verdict(yes_or_no(bad, good), False, [0.8, -0.01]) == "undecided"
    kept = {"stage1": [scores_of(good, bad)] * 2, "low": [scores_of(good, good), scores_of(bad, good)]}
    (row,) = judge(kept)  # the other statements are of arms that are not there
    assert row["by_seed"] == [0.0, pytest.approx(-0.75)]
    assert (row["n"], row["verdict"]) == (200, "does not hold")
    json.dumps(row, allow_nan=False)


def test_the_interval_across_seeds_is_students():
    assert across([0.5]) is None
    found = across([0.4, 0.5, 0.6])
    # t(0.975, 2) = 4.3027; s / sqrt(3) = 0.057735
    assert found["value"] == pytest.approx(0.5)
    assert found["low"] == pytest.approx(0.5 - 4.3027 * 0.057735, abs=1e-4)
    assert across([1.0, 1.0, 0.9])["high"] == 1.0


@pytest.mark.parametrize(
    ("read", "text", "outcome"),
    [
        (stacking.arms_of, "alone, low", ["low", "alone"]),
        (stacking.seeds_of, "3,1,1", [1, 3]),
        (stacking.arms_of, "low,hihg", "unknown arm 'hihg'"),
        (stacking.seeds_of, "-1", "lists no seeds"),
    ],
)
def test_a_list_is_read_in_its_own_order_or_refused(read, text, outcome):
    if isinstance(outcome, list):
        assert read(text) == outcome
    else:
        with pytest.raises(ElleError, match=outcome):
            read(text)


@pytest.mark.real
def test_a_model_answers_every_row_or_is_named(tmp_path, small_base):
    rows = [row_of("sums"), row_of("worked")]
    answers = batch.answer(small_base, rows, tmp_path / "answers.jsonl", max_tokens=4)
    assert read_outputs(tmp_path / "answers.jsonl") == answers
    assert answers.keys() == {row["id"] for row in rows}
    (tmp_path / "model").mkdir()
    with pytest.raises(ElleError, match="no answers"):
        batch.answer(tmp_path / "model", rows, tmp_path / "answers.jsonl", max_tokens=4)
