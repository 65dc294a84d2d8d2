"""The guides: their figures are the planner's, and their plans are profiles that can be planned and run."""

import re
import shutil

import gpu_rows
import grammar_parts
import pytest
import refresh

from elle.base import paths, yaml_files
from elle.base.errors import ElleError
from elle.briefings.metrics import parse
from elle.evaluation import clauses, reading
from elle.evaluation.statements import Checker
from elle.plan import budget, fix, hardware, preflight
from helpers.runs import pipeline, planning, profile

REFUSALS = yaml_files.read_yaml(paths.root() / "tests" / "fixtures" / "refusals.yaml")
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
    assert [refresh.main(arguments) for arguments in (["--check"], [], ["--check"])] == [1, 0, 0]
    assert "make docs" in capsys.readouterr().out
    assert page.read_text() == before


@pytest.mark.parametrize(("text", "message"), REFUSALS["places"])
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
    for name in (name for name, plan_of, *_ in refresh.PLANS if plan_of == guide):
        assert f"$ elle plan {name} --short\n" in text
        assert f"configs/profiles/{name}.yaml" in text
    # A comment at a line's start begins a block of HTML: the sentence around it would fall apart.
    assert not re.search(r"^<!-- (?!elle|end|plans)", text, re.MULTILINE)
    assert set(re.findall(r"\$\d+(?:\.\d+)?", refresh.PLACE.sub("", text))) <= DOCUMENTED


@pytest.mark.parametrize("name", [name for name, *_ in refresh.PLANS])
def test_a_documented_plan_is_a_profile_within_its_budget(name):
    chosen = profile.load_profile(name)
    assert [step[:2] for step in chosen.notebooks] == ["00", "03", "04", "05", "07", "08", "10"]
    pipeline.step_parameters(chosen, chosen.notebooks, {})
    plan = refresh.answered(name)
    assert (plan["ok"], plan["verdict"]) == (True, "fits")
    assert plan["dollars"]["high"] <= plan["budget"] == chosen.parameters["budget"]
    assert all(one["steps"] >= 20 for one in plan["plans"])  # notebook 05 compares the first loss with the last


def test_what_the_guides_say_of_the_documents_budgets_is_so():
    """The prose says which of them hold; it must be read again when this changes."""
    assert {name for name, *_, data in refresh.PLANS if refresh.answered(name, data)["ok"]} == {
        "starter",
        "three-hours",
    }
    for name, price in (("battle-qlora", "3.75"), ("battle-full", "3.75"), ("beast", "3.59")):  # "it is not the price"
        assert refresh.answered(name, "documents-cic", price)["dollars"]["low"] > 50
    for recipe in ("config", "config_14b"):
        assert refresh.answered(f"configs/{recipe}.yaml", "documents-cic")["dropped_examples"] == 10_000
    for name in ("beast", "stacked"):  # a profile's number of examples is not that of other data
        assert refresh.answered(name, "documents-cic")["plans"][0]["examples"] == 9800


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
    # "What to watch": who validates, and how often; adapters are saved at the last step, full trainings not at all.
    every = {"battle-qlora": 1, "battle-full": 1, "beast": 1, "stacked": 0, "stacked-nf4": 2}
    assert plan.budget.steps // plan.config["eval_steps"] == every[name]
    assert (plan.config.get("eval_on_start") is False) == (name == "beast")
    assert plan.budget.saves == (plan.setup.method != "full")


@pytest.mark.parametrize("kind", yaml_files.config_table("grammar")["forms"])
def test_every_kind_of_statement_has_an_example_that_is_right_and_that_only_it_reads(kind, monkeypatch):
    example, right = grammar_parts.STATEMENTS[kind]
    assert right
    texts = {"nsm": f"{example}."}
    found = Checker(parse(grammar_parts.PROMPT)).check(texts)
    assert (found.unread, found.wrong) == ([], [])
    faults = [fault for fault in found.faults if not fault.endswith("nothing is said")]
    assert faults == ["nsm: functional undefined, but it is not given"] * (kind == "functional")
    others = {start: [form for form in forms if form[0] != kind] for start, forms in clauses.FORMS.items()}
    monkeypatch.setattr(clauses, "FORMS", others)
    monkeypatch.setattr(reading, "_sentence", clauses.parse_sentence)  # nothing is kept of what was read before
    (read,) = reading.Reader(frozenset()).read(texts)
    assert read.plan.unread


def test_the_grammars_page_shows_every_form_word_name_and_unit_in_plain_signs():
    page, grammar = grammar_parts.grammar_page(), yaml_files.config_table("grammar")
    forms = page.count("`<br>`") + len(grammar["forms"])
    assert forms == sum(map(len, grammar["forms"].values()))
    assert "| `[a \\|its \\|the ]{trend} trend`" in page.replace("<br>", "| ")
    for sign in ("(?", "\\(", "?<", ",?"):
        assert sign not in page
    for phrases in (
        *grammar["names"].values(),
        *(each for senses in grammar["words"].values() for each in senses.values()),
    ):
        assert ", ".join(phrases.split("|")) in page
    assert "crisis-level" in page
    assert "| agreement, confidence, decayed | none; %, per cent |" in page


def test_a_budget_that_the_data_alone_keeps_is_told_from_one_that_holds():
    def judged(*dollars: float) -> str:
        return refresh.judged(*({"budget": 50, "dollars": {"low": high - 5, "high": high}} for high in dollars))

    assert judged(40, 50) == "$50 holds"
    assert judged(48, 50) == "$50 holds narrowly"
    assert judged(40, 60) == "$50 holds, because our data is shorter: $5.0 to $10.0 over on the documents'"
    assert judged(60, 70) == "$50 does not hold: $5.0 to $10.0 over on our set"


def test_what_the_pages_say_of_gpus_is_what_their_rows_say():
    """ "2.8 times as long", "9 % of the peak", and the recipes that use most of a card are planned to be faster."""
    ours = {one.row["run"]: one.row for one in gpu_rows.compare_all(gpu_rows.file()) if one.ours}
    assert len(ours) == 7
    assert round(ours["f3z3"]["median_step_s"] / ours["f3z2"]["median_step_s"], 1) == 2.8
    assert f"{refresh._share(ours['q3']):.0%}" == "9%"
    assert ours["q7"]["row_tokens_per_s"] > ours["q7k"]["row_tokens_per_s"]
    assert float(refresh.tuned("config_3b_qlora")) >= 2.5
    assert float(refresh.tuned("config_qlora")) >= 1.4
    for name in ("config_3b_qlora", "config_qlora"):  # "an A10 with a smaller micro batch"
        plan = preflight.plan(f"configs/{name}.yaml", gpu="a10", data="basic")
        assert plan.verdict == "does not fit"
        changed = {key for change in fix.nearest_recipe(plan)[1] for key, _, _ in change.parts()}
        assert changed == {"micro_batch_size", "gradient_accumulation_steps"}
    written = preflight.plan("configs/config_14b.yaml", data="basic")  # "under ZeRO-2 it would be tight"
    assert planning.varied(written, deepspeed="deepspeed/zero2.json").verdict == "tight"
