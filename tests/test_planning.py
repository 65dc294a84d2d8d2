"""What notebook 04 and the report ask of the planner: a run's own plans, and what became of them."""

import json
import re
from pathlib import Path

import pytest

from elle.base.errors import ElleError
from elle.briefings import dataset
from elle.plan import fix, preflight
from helpers import runs
from helpers.course import show
from helpers.runs import manifest, parameters, planning, report

STEP = "04_plan_the_run"


def started(**given) -> runs.Run:
    defaults = {name: parameter.default for name, parameter in parameters.parameters(parameters.file_of(STEP)).items()}
    return runs.start(STEP, defaults | given)


def test_a_run_is_planned_on_a_stated_set_until_it_has_data_of_its_own():
    (plan,) = planning.plans_of_run(started(count=400))
    assert (plan.verdict, plan.data.examples) == ("fits", 361)  # of twenty, eighteen are trained on
    assert plan.sizes == "configs/nano_base.yaml"

    data = runs.start("03_generate_data", {"run_id": "lab", "kind": "basic", "count": 400, "seed": 7, "push_to": ""})
    dataset.build("basic", 400, 7, data.path("data"))
    data.finish(kind="basic")
    run = started(count=400)
    (plan,) = planning.plans_of_run(run)
    assert plan.data.examples == 360
    assert "train.jsonl" in plan.data.source
    assert {"03_generate_data", "configs/nano.yaml", "configs/gpus.yaml"} <= set(run.inputs)
    run.finish(plan={})
    assert manifest.is_current(STEP, run.folder, run.parameters)
    data.finish(kind="another")
    assert not manifest.is_current(STEP, run.folder, run.parameters)


def test_a_run_is_planned_with_its_own_hardware_price_and_base(tmp_path):
    rented = {"base": "", "gpu": "h100", "gpus": 2, "disk": 90, "price": 2.0, "budget": 1.0}
    recipes = {"recipe": "configs/config.yaml", "recipe_next": "configs/config_14b.yaml"}
    plans = planning.plans_of_run(started(**rented | recipes))
    assert [plan.file.name for plan in plans] == ["config.yaml", "config_14b.yaml"]
    for plan in plans:
        assert (plan.hardware.name, plan.hardware.count, plan.hardware.disk_gb) == ("h100", 2, 90)
        assert plan.hardware.price == (2.0, 2.0)
        assert plan.limit is None  # the budget is for both together
    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1}
    (tmp_path / "config.json").write_text(json.dumps(sizes | {"intermediate_size": 128, "vocab_size": 500}))
    (own,) = planning.plans_of_run(started(base=str(tmp_path)))
    assert (own.config["base_model"], own.model.layers) == (str(tmp_path), 3)
    with pytest.raises(ElleError, match="unknown GPU"):
        planning.plans_of_run(started(gpu="h20"))


def test_a_plan_that_does_not_hold_ends_the_run():
    plan = preflight.plan("configs/config.yaml", data="basic")
    original, _ = planning.documented()["config_72b_8xh200"]
    planning.require(preflight.together("r", [plan], None))
    with pytest.raises(ElleError, match=r"more than \$1\.00") as caught:
        planning.require(preflight.together("r", [plan], 1.0))
    assert "fewer" in caught.value.fix
    with pytest.raises(ElleError, match="only ZeRO-3 splits them") as caught:
        planning.require(preflight.together("r", [plan, original], None))
    assert "push_to_hub" in caught.value.what


def test_a_plan_is_varied_in_one_thing_at_a_time():
    plan = preflight.plan("configs/config_72b_qlora.yaml", data="documents-cic", limit=50)
    assert planning.varied(plan) == plan
    assert planning.varied(plan, gpus=8).hardware.count == 8
    assert planning.varied(plan, gpu="a100").hardware.count == 2
    cheaper = planning.varied(plan, price=1.0)
    assert cheaper.budget.dollars[0] == pytest.approx(plan.budget.dollars[0] / plan.hardware.price[0])
    assert (cheaper.hardware.disk_gb, cheaper.limit) == (plan.hardware.disk_gb, 50)
    changed = planning.varied(plan, num_epochs=1, flash_attn=None)
    assert changed.config == plan.config | {"num_epochs": 1}


def test_the_documents_plans_stand_beside_the_corrected_ones():
    found = planning.documented()
    assert len(found) == 8
    for original, shipped in found.values():
        assert (original.ok, shipped.ok) == (False, True)
        assert original.data == shipped.data
        assert planning.facts(shipped)["errors"] == "none"
    original, _ = found["config_72b_8xh200"]
    assert "sharegpt, trust-remote-code, weights-replicated" in planning.facts(original)["errors"]
    rows = {row["key"]: row for row in planning.change_rows(fix.nearest_recipe(original)[1])}
    assert rows["datasets[0].type"]["before"] == "'sharegpt'"
    assert rows["push_to_hub"]["after"] == "removed"
    assert "datasets[0].path" not in rows
    assert all(row["why"] for row in rows.values())
    unknown = preflight.assess(Path("x"), {"base_model": "no/such"}, original.hardware, None)
    assert set(planning.facts(unknown).values()) >= {"not covered", "?"}


def test_rows_of_text_are_shown_whole():
    text = show.text([{"a": "<b>" * 40, "b": "$1 to $2"}]).data
    assert "&lt;b&gt;" * 40 in text
    assert "ignore" in text
    assert show.text([]).data == "none"


def test_the_report_holds_the_plan_beside_what_was_measured():
    run = started()
    run.finish(plan=planning.kept(preflight.together("r", planning.plans_of_run(run), None)))
    of_plan = run.folder / "manifests" / f"{STEP}.json"

    def reported(**trained) -> tuple[dict, str]:
        if trained:
            made = {"step": "05_train", "metrics": {"recipe": "configs/nano.yaml", "steps": 800} | trained}
            of_plan.with_name("05_train.json").write_text(json.dumps(json.loads(of_plan.read_text()) | made))
        page = report.write_report(run.folder).read_text()
        (plan,) = json.loads((run.folder / "report.json").read_text())["plan"]["plans"]
        return plan, re.sub(r"\s+", " ", page[page.index("<h2>The plan") : page.index("<h2>Where the time")])

    plan, page = reported()
    assert (plan["measured_hours"], plan["within"], "NOT RUN" in page) == (None, None, True)
    plan, page = reported(seconds=3600 * plan["hours"]["high"] - 1)
    assert (plan["within"], "(within)" in page) == (True, True)
    plan, page = reported(seconds=36000.0)
    assert (plan["within"], "10.00 (outside)" in page) == (False, True)
    plan, _ = reported(seconds=36000.0, recipe="configs/smoke.yaml")
    assert plan["measured_hours"] is None
    of_plan.unlink()
    assert report.report_card(run.folder)["plan"] is None
    assert "notebook 04, plans a run" in report.write_report(run.folder).read_text()
