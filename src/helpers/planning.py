"""What notebook 04 asks of the planner: the plans of what a run trains, on its own data."""

from helpers import profile
from helpers.notebook import Run
from helpers.profile import Profile
from helpers.training import preflight, recipe
from helpers.training.preflight import Plan

DATA = "03_generate_data"


def of_run(run: Run) -> list[Plan]:
    """The plans of a run's `recipe` and, if it names one, its `recipe_next`: with its GPUs, disk, price and `base`; on
    its own data if notebook 03 has made it, else on the stated set of its `kind` (as `elle plan PROFILE` does).

    A `budget` is for all of them together (`preflight.together`), so it is no plan's own.

    Raises:
        ElleError: what `preflight.plan` raises.
    """
    values = run.parameters
    chosen = Profile(name=run.folder.name, summary="", notebooks=[], parameters=values)
    options = profile.plan_options(chosen)
    options.pop("limit", None)
    if run.path("manifests", f"{DATA}.json").exists():
        run.need(DATA)
        options |= {"data": str(run.path("data")), "examples": None}
    return [_with_base(preflight.plan(run.uses(path), **options), run) for path in profile.recipes(chosen)]


def _with_base(plan: Plan, run: Run) -> Plan:
    """The plan with the run's own `base` in place of the recipe's base_model, as notebook 05 trains it."""
    base = run.parameters["base"]
    if not base:
        return plan
    made = base.endswith((".yaml", ".yml"))  # the sizes of a nano base, which is made in the run's folder
    config = recipe.merge(plan.config, {"base_model": str(run.path("base")) if made else base})
    return preflight.assess(plan.file, config, plan.hardware, plan.data, sizes=base if made else "")
