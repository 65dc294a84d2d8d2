"""From a recipe, a profile or a run to its plans; the documents' beside the corrected ones, and what a choice changes;
for the report, what was planned beside what was measured."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from elle.base import paths, yaml_files
from elle.base.errors import ElleError
from elle.plan import hardware, preflight, recipe
from elle.plan.budget import Data
from elle.plan.fix import Change
from elle.plan.preflight import Plan, span
from helpers.runs import Run, profile
from helpers.runs.profile import Profile

DATA = "03_generate_data"
#: What a manifest keeps of a plan's JSON (`Plan.to_json`): what the report shows, and what decided it.
KEPT = """
    recipe ok verdict hardware peak_gb limit_gb host_gb host_limit_gb disk_gb hours training_hours dollars tokens
    steps examples dropped_examples
""".split()  # noqa: SIM905


def plans_of(target: str, *, full: bool = False, **options: Any) -> tuple[list[Plan], dict[str, Any]]:
    """The plans that `target` comes to (a recipe's file: one; a profile's name: one of each of its recipes), and the
    answer for programs (`Plan.to_json`, for a profile `preflight.together`).

    Args:
        full: ask Axolotl's and DeepSpeed's own validators, too.
        options: as `preflight.plan` takes them; those that are not None go before the profile's own.

    Raises:
        ElleError: what `preflight.plan`, `preflight.ask_trainer` and `profile.load_profile` raise.
    """
    given = {name: value for name, value in options.items() if value is not None}
    is_profile = target in profile.profile_names()
    if is_profile:
        plans, limit = _plans_of_profile(profile.load_profile(target), given)
    else:
        plans, limit = [preflight.plan(target, **given)], None
    if full:
        plans = preflight.ask_trainer(plans)
    return plans, preflight.together(target, plans, limit) if is_profile else plans[0].to_json()


def _plans_of_profile(chosen: Profile, given: dict[str, Any]) -> tuple[list[Plan], float | None]:
    """The plans of a profile's recipes, and the dollars that all of them may cost together."""
    own = profile.plan_options(chosen)
    if "data" in given:  # the profile's number of examples is that of its own set
        own.pop("examples", None)
    options = own | given
    limit = options.pop("limit", None)
    return [preflight.plan(path, **options) for path in profile.recipes(chosen)], limit


def plans_of_run(run: Run) -> list[Plan]:
    """The plans of a run's `recipe` and, if it names one, its `recipe_next`: with its GPUs, disk, price and `base`; on
    its own data if notebook 03 has made it, else on the stated set of its `kind`.

    Raises:
        ElleError: what `preflight.plan` raises.
    """
    chosen, given = Profile(name=run.folder.name, summary="", notebooks=[], parameters=run.parameters), {}
    if run.path("manifests", f"{DATA}.json").exists():
        run.need(DATA)
        given["data"] = str(run.path("data"))
    for path in ("configs/gpus.yaml", *profile.recipes(chosen)):
        run.uses(path)
    return [_with_base(plan, run) for plan in _plans_of_profile(chosen, given)[0]]


def _with_base(plan: Plan, run: Run) -> Plan:
    """The plan with the run's own `base` in place of the recipe's base_model, as notebook 05 trains it."""
    base = run.parameters["base"]
    if not base:
        return plan
    made = base.endswith((".yaml", ".yml"))  # the sizes of a nano base, which is made in the run's folder
    config = recipe.merged(plan.config, {"base_model": str(run.path("base")) if made else base})
    return preflight.assess(plan.file, config, plan.hardware, plan.data, sizes=base if made else "")


def varied(
    plan: Plan, *, gpu: str = "", gpus: int = 0, price: float | None = None, data: Data | None = None, **changes: Any
) -> Plan:
    """The same plan with another GPU, number of GPUs, price (else the list price) or data, and with other values of the
    recipe's keys (None removes one).

    Raises:
        ElleError: an unknown GPU, an invalid count or price.
    """
    machine = plan.hardware
    if gpu or gpus or price is not None:
        machine = hardware.find(gpu or machine.name, gpus or machine.count, machine.disk_gb, price)
    config = recipe.merged(plan.config, changes)
    return preflight.assess(plan.file, config, machine, data or plan.data, sizes=plan.sizes, limit=plan.limit)


def documented() -> dict[str, tuple[Plan, Plan]]:
    """By name, each of the documents' recipes as it was and as it is shipped: on the hardware that it is meant for and
    on the documents' own data."""
    found = {}
    for path in sorted((paths.root() / "tests" / "fixtures" / "documented").glob("*.yaml")):
        data = yaml_files.config_table("recipes")["recipes"][path.name]["data"].removeprefix("documents-")
        files = (path, paths.configs() / path.name)
        found[path.stem] = tuple(preflight.plan(file, data=f"documents-{data}") for file in files)
    return found


def facts(plan: Plan) -> dict[str, str]:
    """A plan as a row of a table. GB of each GPU (of a laptop: of all its memory) and of the host; the examples that
    it trains on; "?" where nothing is known."""
    m, b, machine = plan.memory, plan.budget, plan.hardware
    errors = Counter(f.code for f in plan.findings if f.severity == "error")
    return {
        "verdict": plan.verdict,
        "memory (GB)": f"{m.peak:.1f} of {machine.memory_gb:.1f}" if m else "?",
        "host (GB)": "–" if machine.is_cpu else f"{m.host_total:,.0f} of {machine.host_gb:,.0f}" if m else "?",
        "disk (GB)": f"{b.disk_total:,.0f} of {machine.disk_gb:,.0f}" if b else "?",
        "examples": f"{b.examples:,}" if b else "?",
        "steps": f"{b.steps:,}" if b else "?",
        "hours": span(b.hours, "").strip() if b else "?",
        # Without its unit: a table's dollar signs would be taken for formulas.
        "dollars": "0" if machine.is_cpu else span(b.dollars, "").strip() if b else "?",
        "errors": ", ".join(code if n == 1 else f"{code} ({n})" for code, n in errors.items()) or "none",
    }


def change_rows(changes: Iterable[Change]) -> list[dict[str, str]]:
    """What `--fix` changed, as rows of a table."""
    return [
        {"key": key, "before": before, "after": after, "why": change.why}
        for change in changes
        for key, before, after in change.parts()
    ]


def require(answer: dict) -> None:
    """End a run whose plan (`preflight.together`'s answer) does not hold, before it costs anything.

    Raises:
        ElleError: it does not, with all that stands against it, and how to put the first of it right.
    """
    if answer["ok"]:
        return
    against = [found for found in answer["findings"] if found["severity"] == "error"]
    why = "; ".join(f"{found['where']}: {found['message']}" for found in against) or f"it {answer['verdict']}"
    fix = f"{against[0]['where']}: {against[0]['fix']}; " if against and against[0]["fix"] else ""
    raise ElleError(
        f"this run's plan does not hold: {why}",
        where=f"profile or run {answer['profile']}",
        fix=f"{fix}`elle plan RECIPE --fix OUT.yaml` looks for a recipe that passes",
    )


def kept(answer: dict) -> dict[str, Any]:
    """What a manifest holds of `preflight.together`'s answer: the whole, and each plan with the codes it found."""
    plans = [
        {key: each[key] for key in KEPT} | {"findings": [f["code"] for f in each["findings"]]}
        for each in answer["plans"]
    ]
    return {key: answer[key] for key in ("ok", "verdict", "hours", "dollars")} | {"plans": plans}


def with_measured(plan: dict[str, Any] | None, training: dict[str, Any] | None) -> dict[str, Any] | None:
    """A run's plan as `kept` made it, and with each recipe, if the run has trained it, `measured_hours` and
    `within` (whether they lie in the planned interval). training: what notebook 05 measured."""
    if plan is None:
        return None
    trained = paths.shown(paths.located(training["recipe"])) if training else None
    plans = []
    for each in plan["plans"]:
        hours = within = None
        if training and each["recipe"] == trained:
            hours = round(training["seconds"] / 3600, 4)
            low, high = each["hours"]["low"], each["hours"]["high"]
            within = None if high is None else low <= hours <= high
        plans.append(each | {"measured_hours": hours, "within": within})
    return plan | {"plans": plans}
