"""The guides: their figures are the planner's, and their plans are profiles that can be planned and run."""

import re
import shutil

import gpu_rows
import pytest
import refresh

from elle.base import paths
from elle.base.errors import ElleError
from elle.plan import budget, fix, hardware, preflight
from helpers.runs import pipeline, planning, profile

GUIDES = sorted({guide for _, guide, *_ in refresh.PLANS})
#: Dollars that a guide may state by itself: the documents' own. All others are filled in.
DOCUMENTED = {"$5", "$10", "$3", "$22.50", "$50", "$30", "$28.72", "$7.50", "$0.50"}


@pytest.fixture(autouse=True)
def _list_prices(monkeypatch):
    monkeypatch.delenv(hardware.PRICE, raising=False)


def test_figures_are_those_of_the_planner():
    assert [paths.shown(page) for page in refresh.stale()] == [], "run `make docs`"


def test_a_stale_figure_is_found_and_put_right(tmp_path, monkeypatch, capsys):
    page = tmp_path / "docs" / "BEAST_MODE_8xH200.md"
    shutil.copytree(paths.root() / "docs", page.parent)
    monkeypatch.setattr(refresh, "pages", lambda: [page])
    before = page.read_text()
    page.write_text(before.replace("in 60 steps", "in 66 steps", 1))
    assert refresh.main(["--check"]) == 1
    assert "make docs" in capsys.readouterr().out
    assert refresh.main([]) == 0
    assert page.read_text() == before
    assert refresh.main(["--check"]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- beast: hours -->1 h", "without its end"),
        ("<!-- beast: hours -->1 <!-- beast: dollars -->2<!-- end -->", "without its end"),
        ("<!-- beast: hour -->1 h<!-- end -->", "unknown figure"),
        ("<!-- a remark --><!-- end -->", "not a figure"),
        ("<!-- elle plan configs/config.yaml --short --><!-- end -->", "depend on the data"),
        ("<!-- elle plan baest --short --><!-- end -->", "depend on the data"),
        ("<!-- elle plan configs/none.yaml --data basic --><!-- end -->", "nothing to plan"),
        ("<!-- gpu row --><!-- end -->", "not a figure"),
    ],
)
def test_a_place_that_cannot_be_filled_is_named(tmp_path, text, message):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ElleError, match=message):
        refresh.filled(page)


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_has_its_parts_and_all_its_plans(guide):
    text = (paths.root() / "docs" / f"{guide}.md").read_text(encoding="utf-8")
    parts = ("| documented | planned | why |", "## The pod", "## What to watch", "## What can go wrong", "## Not run")
    for part in (*parts, "make pod", "/workspace/data", "been run on a GPU"):
        assert part in text, part
    for name, plan_of, *_ in refresh.PLANS:
        if plan_of == guide:
            assert f"$ elle plan {name} --short\n" in text
            assert f"configs/profiles/{name}.yaml" in text
    # A comment at a line's start begins a block of HTML: the sentence around it would fall apart.
    assert not re.search(r"^<!-- (?!elle|end|plans)", text, re.MULTILINE)


@pytest.mark.parametrize("guide", GUIDES)
def test_no_dollars_stand_in_a_guide_but_the_planners_and_the_documents(guide):
    text = refresh.PLACE.sub("", (paths.root() / "docs" / f"{guide}.md").read_text(encoding="utf-8"))
    assert set(re.findall(r"\$\d+(?:\.\d+)?", text)) <= DOCUMENTED


@pytest.mark.parametrize("name", [name for name, *_ in refresh.PLANS])
def test_a_documented_plan_is_a_profile_within_its_budget(name):
    chosen = profile.load_profile(name)
    assert [step[:2] for step in chosen.notebooks] == ["00", "03", "04", "05", "07", "08", "10"]
    pipeline.step_parameters(chosen, chosen.notebooks, {})
    plan = refresh.answered(name)
    assert plan["ok"]
    assert plan["verdict"] == "fits"
    assert plan["dollars"]["high"] <= plan["budget"] == chosen.parameters["budget"]
    # Notebook 05 compares the first loss with the last: two have to be logged.
    for one, path in zip(plan["plans"], profile.recipes(chosen), strict=True):
        assert one["steps"] >= 20, path


def test_what_the_guides_say_of_the_documents_budgets_is_so():
    """The prose says which of them hold; it must be read again when this changes."""
    holds = {name: refresh.answered(name, data)["ok"] for name, *_, data in refresh.PLANS}
    assert {name for name, ok in holds.items() if ok} == {"starter", "three-hours"}
    for name in ("battle-qlora", "battle-full", "beast"):  # "it is not the price"
        price = "3.59" if name == "beast" else "3.75"
        assert refresh.answered(name, "documents-cic", price)["dollars"]["low"] > 50
    for recipe in ("config", "config_14b"):
        plan = refresh.answered(f"configs/{recipe}.yaml", "documents-cic")
        assert plan["dropped_examples"] == 10_000


@pytest.mark.parametrize("name", [name for name, *_, data in refresh.PLANS if data == "documents-cic"])
def test_what_the_guides_say_of_our_own_cic_set_is_so(name):
    ours, theirs = (budget.find_data(data, "") for data in ("cic", "documents-cic"))
    assert round(theirs.tokens / theirs.examples / (ours.tokens / ours.examples)) == 5  # "a fifth"
    chosen = profile.load_profile(name)
    assert (chosen.parameters["kind"], chosen.parameters["count"]) == ("cic", 10_000)
    plan = preflight.plan(profile.recipes(chosen)[0], **profile.plan_options(chosen))
    assert plan.data.examples == 9000

    def longer(factor: float) -> preflight.Plan:
        lengths = {round(length * factor): count for length, count in plan.data.lengths.items()}
        return planning.varied(plan, data=budget.Data("longer", lengths, ""))

    # "It holds narrowly: with examples a tenth longer it does not", the others with a fifth.
    assert {finding.code for finding in longer(1.1).findings if finding.severity == "error"} == (
        {"budget"} if name == "beast" else set()
    )
    assert longer(1.2).ok is (name != "beast")
    assert ("holds narrowly" in refresh.judged(refresh.answered(name), refresh.answered(name))) is (name == "beast")
    if name in ("beast", "stacked"):  # "twice as many steps of half the size, at much the same cost"
        finer = planning.varied(plan, gradient_accumulation_steps=1)
        assert finer.ok is (name == "stacked")  # "which is then above the budget at its upper end"
        assert finer.budget.dollars[0] < finer.limit
        assert finer.budget.steps == pytest.approx(2 * plan.budget.steps, abs=2)
        assert finer.budget.dollars[1] == pytest.approx(plan.budget.dollars[1], rel=0.02)
    # "Nine examples share a row", or four of those that are half as long.
    filled = plan.budget.steps * plan.setup.micro * plan.setup.accumulation * plan.setup.gpus
    shared = plan.budget.examples * plan.config["num_epochs"] / filled
    assert int(shared) == (9 if plan.setup.sequence == 6144 else 4)
    # "What to watch": who validates, and how often; adapters are saved at the last step, full trainings not at all.
    every = {"battle-qlora": 1, "battle-full": 1, "beast": 1, "stacked": 0, "stacked-nf4": 2}
    assert plan.budget.steps // plan.config["eval_steps"] == every[name]
    assert (plan.config.get("eval_on_start") is False) == (name == "beast")
    assert plan.budget.saves == (plan.setup.method != "full")


@pytest.mark.parametrize(
    ("ours", "theirs", "text"),
    [
        (40, 50, "$50 holds"),
        (48, 50, "$50 holds narrowly"),
        (40, 60, "$50 holds, because our data is shorter: $5.0 to $10.0 over on the documents'"),
        (60, 70, "$50 does not hold: $5.0 to $10.0 over on our set"),
    ],
)
def test_a_budget_that_the_data_alone_keeps_is_told_from_one_that_holds(ours, theirs, text):
    def answer(dollars: float) -> dict:
        return {"budget": 50, "dollars": {"low": dollars - 5, "high": dollars}}

    assert refresh.judged(answer(ours), answer(theirs)) == text


def test_a_profiles_number_of_examples_is_not_that_of_other_data():
    assert refresh.answered("beast", "documents-cic")["plans"][0]["examples"] == 9800
    assert refresh.answered("stacked", "documents-cic")["plans"][0]["examples"] == 9800


def test_what_the_pages_say_of_gpus_is_what_their_rows_say():
    """ "2.8 times as long", "9 % of the peak", and the recipes that use most of a card are planned to be faster."""
    ours = {one.row["run"]: one for one in gpu_rows.compare_all(gpu_rows.file()) if one.ours}
    assert len(ours) == 7
    assert round(ours["f3z3"].row["median_step_s"] / ours["f3z2"].row["median_step_s"], 1) == 2.8
    assert f"{refresh._share(ours['q3'].row):.0%}" == "9%"
    assert set(ours["f3z3"].row["parameters"]) == {"float32*"}
    assert ours["q7"].row["row_tokens_per_s"] > ours["q7k"].row["row_tokens_per_s"]
    assert {one.row["gpus"] for one in ours.values()} == {1}
    assert float(refresh.tuned("config_3b_qlora")) >= 2.5
    assert float(refresh.tuned("config_qlora")) >= 1.4
    assert 1 < float(refresh.tuned("config_3b_qlora", "a100")) < float(refresh.tuned("config_3b_qlora"))
    for name in ("config_3b_qlora", "config_qlora"):  # "an A10 with a smaller micro batch"
        plan = preflight.plan(f"configs/{name}.yaml", gpu="a10", data="basic")
        assert plan.verdict == "does not fit"
        fixed, changes = fix.nearest_recipe(plan)
        assert fixed.ok
        changed = {key for change in changes for key, _, _ in change.parts()}
        assert changed == {"micro_batch_size", "gradient_accumulation_steps"}
    written = preflight.plan("configs/config_14b.yaml", data="basic")  # "under ZeRO-2 it would be tight"
    assert planning.varied(written, deepspeed="deepspeed/zero2.json").verdict == "tight"
