"""The results of notebook 06 as a page: `python benchmarks/stacked.py RUN_ID`, after `elle run stacked-nano --run-id
RUN_ID`. Writes `docs/stacked.json` from the run's manifest, and `docs/stacked.md` made from it.
"""

import sys
from collections.abc import Mapping

from elle.base import paths, storage
from elle.base.errors import ElleError
from elle.base.tables import markdown
from elle.briefings.cic_figures import DERIVED
from experiments import stacking

STEP = "06_stack_on_math"
KEPT = ("sums", "assessments", "questions", "replay", "seeds")


def page(found: Mapping) -> str:
    given, results = found["parameters"], found["results"]
    each = [
        {"model": name} | {figure: stacking.percent(model["pooled"][figure]) for figure in DERIVED}
        for name, model in results["models"].items()
    ]
    seconds = sum(sum(model["seconds"]) for model in results["models"].values())
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return f"""# Stacked on mathematics, at nano size

[Notebook 06](../notebooks/06_stack_on_math.ipynb) puts [STACKED_MATH_MODE](STACKED_MATH_MODE.md) on trial with a Qwen2
of 0.9 million parameters. `elle run stacked-nano --run-id {found["run"]}` on {found["date"]}, then
`python benchmarks/stacked.py {found["run"]}`: {found["device"].rstrip(".")}; {versions}.

Seeds {", ".join(map(str, results["seeds"]))}; stage 1 on {given["sums"]:,} sums with worked steps, stage 2 on
{given["assessments"]:,} CIC assessments (replay: {given["replay"]:g} sums for each); {given["questions"]:,} unseen
questions of either kind, for every model and seed, answered greedily. No subtraction of a test was in a training row of
either stage. Trainings took {seconds:,.0f} s in all, start-ups included.

{markdown(stacking.table(results))}

Shares in per cent with 95 % intervals: Wilson's, over the questions of all seeds; and of the mean across seeds,
Student's t, which holds the spread between trainings. `sums`: of stage 1, the result is right; `form`: it is worked out
at all, rightly or wrongly; `gain`: an assessment's two sums hold, from the figures that it prints itself; `right`: net
and F are right.

## The documents' statements

{markdown(stacking.trials(results))}

McNemar's exact test on the same questions, all seeds together; differences in percentage points. *No worse* holds if it
is worse by less than five points for sure, *better* if the interval lies above zero. Several statements are tried, and
p is not corrected for that.

## Each computed figure

{markdown(each)}

Nano is not 72B: 0.9 million parameters that have seen nothing but sums have little to carry over, and little room for
two things at once; and an adapter cannot learn words whose embeddings no training has touched, of which 72B has none.
"""


def main(run_id: str) -> None:
    path = paths.runs() / run_id / "manifests" / f"{STEP}.json"
    if not path.exists():
        raise ElleError("notebook 06 has not run in this run", where=paths.shown(path), fix="elle run stacked-nano")
    manifest = storage.read_json(path)
    found = {
        "run": run_id,
        "date": manifest["started"][:10],
        "device": manifest["device"],
        "versions": manifest["versions"],
        "parameters": {name: manifest["parameters"][name] for name in KEPT},
        "results": manifest["metrics"],
    }
    docs = paths.root() / "docs"
    storage.write_json(docs / "stacked.json", found)
    print(f"written: {paths.shown(storage.write_text(docs / 'stacked.md', page(found)))}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except ElleError as failure:
        sys.exit(f"error: {failure}")
