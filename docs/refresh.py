"""Puts the planner's figures, what briefings cost, and the figures of the published run into the pages: `make docs`;
with `--check`, only says which pages are not current. The picture of costs.md is drawn anew with other figures.

In README.md and docs/*.md, what stands between one of these comments and the next `<!-- end -->` is written here:

    <!-- elle plan beast --short -->           the command's own output, as a code block (`elle plan`, `elle costs`)
    <!-- beast on documents-cic: dollars -->   one figure of a plan (see FIGURES), within a line; `on SET` (what
                                               `--data` takes) may be left out for a profile, and `at 3.59` (dollars a
                                               GPU-hour) may follow
    <!-- plans -->                             the table of all documented plans
    <!-- metrics -->                           what the evaluation measures (configs/metrics.yaml)
    <!-- grammar -->                           what the evaluator reads (configs/grammar.yaml, `grammar_parts`)
    <!-- gpu rows -->                          what real GPUs said beside what is planned, a row each
    <!-- gpu summary -->                       how near the planner comes to them
    <!-- gpu measured -->                      the rows measured here, with what torch and the driver said
    <!-- gpu versions -->                      what they were measured with
    <!-- gpu layers -->                        what a layer keeps and takes, by how it is trained
    <!-- gpu shares -->                        the shares of the peak that arithmetic reaches
    <!-- causes -->                            what a failed training's log is searched for, and what to do
    <!-- tuned: config_3b_qlora on a100 -->    how many times as fast a tuned recipe is planned to be on one such GPU
                                               (by default an H200)
    <!-- course: figures -->                   a part of the report of the run that the notebooks show (`elle publish`;
                                               the parts are those of `report_parts`)
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path

import grammar_parts
import report_parts

from elle.base import paths, storage, yaml_files
from elle.base.errors import ElleError, unknown
from elle.base.tables import markdown
from elle.evaluation.scorecard import METRICS
from elle.plan import hardware, memory, models, preflight, speed
from elle.training import diagnosis
from helpers import cli, economics, plots
from helpers.runs import planning, profile

sys.path.append(str(paths.root() / "benchmarks"))
import gpu_rows

PLACE = re.compile(r"<!-- (?P<what>(?:(?!-->).)+) -->(?:(?!<!--).)*<!-- end -->", re.DOTALL)
TUNED = re.compile(r"tuned: (?P<name>\w+)(?: on (?P<gpu>\w+))?")
FIGURE = re.compile(r"(?P<target>\S+)(?: on (?P<data>\S+))?(?: at (?P<price>[\d.]+))?: (?P<name>\w+)")

#: The documented plans: profile, what it trains, the document's hours and dollars, and the set whose lengths are those
#: of what the document trains on.
PLANS = (
    ("starter", "RUNPOD_GUIDE", "Qwen2.5-3B, QLoRA", "2 h", "$5–10", "documents-basic"),
    ("three-hours", "ULTIMATE_ELLE_PLAN", "Qwen2.5-7B, then 14B, full", "3 h", "$22.50", "documents-basic"),
    ("battle-qlora", "ULTIMATE_ELLE_72B_BATTLE_PLAN", "Qwen2.5-72B, QLoRA", "6.5 h", "$50", "documents-cic"),
    ("battle-full", "ULTIMATE_ELLE_72B_BATTLE_PLAN", "Qwen2.5-72B, bf16 LoRA", "3 h", "$50", "documents-cic"),
    ("beast", "BEAST_MODE_8xH200", "Qwen2.5-72B, full", "1.7 h", "$50", "documents-cic"),
    ("stacked", "STACKED_MATH_MODE", "qwen-72b-math-v1, full", "1.7 h", "$50", "documents-cic"),
    ("stacked-nf4", "STACKED_MATH_MODE", "qwen-72b-math-nf4, QLoRA", "4 h", "$30", "documents-cic"),
)


#: A budget holds narrowly where less than this share of it may be left.
NARROW = 0.05


@functools.cache
def output(command: str) -> str:
    """What `elle plan …` or `elle costs …` prints.

    Raises:
        ElleError: there is no such recipe; one without `--data`, whose figures would depend on what was generated here.
    """
    words = command.split()[1:]
    if words[0] == "plan" and words[1] not in profile.profile_names() and "--data" not in words:
        raise ElleError("a recipe's figures depend on the data here", where=command, fix="give it --data SET")
    printed, status = io.StringIO(), 0
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),  # what `--fix` writes is not kept
        contextlib.redirect_stdout(printed),
    ):
        try:
            cli.cli.main(args=words, standalone_mode=False)
        except SystemExit as ended:
            status = ended.code
    if status == 2:  # 1 is a plan that does not pass: an answer, too
        raise ElleError("there is nothing to plan by that name", where=command, fix="correct the command in the page")
    return printed.getvalue().rstrip("\n")


def money(dollars: float) -> str:
    return f"${dollars:,.0f}" if dollars == int(dollars) else f"${dollars:,.2f}"


def spanned(values: dict[str, float], unit: str) -> str:
    return preflight.span((values["low"], values["high"]), unit)


def over(answer: dict) -> str:
    """By how much a plan's dollars exceed the profile's budget."""
    low, high = (max(0.0, answer["dollars"][end] - answer["budget"]) for end in ("low", "high"))
    return spanned({"low": low, "high": high}, "$")


#: What may be asked of a plan, from its JSON.
FIGURES = {
    "verdict": lambda answer: answer["verdict"],
    "hours": lambda answer: spanned(answer["hours"], "h"),
    "dollars": lambda answer: spanned(answer["dollars"], "$"),
    "most": lambda answer: f"${answer['dollars']['high']:,.2f}",
    "over": over,
    "peak": lambda answer: f"{answer['peak_gb']:.1f} GB",
    "host": lambda answer: f"{answer['host_gb']:,.0f} GB",
    "disk": lambda answer: f"{answer['disk_gb']:,.0f} GB",
    "steps": lambda answer: " + ".join(f"{one['steps']:,}" for one in answer.get("plans", [answer])),
    "adapter": lambda answer: f"{2e-6 * answer['plans'][0]['trained_parameters']:,.0f} MB",
}


def answered(target: str, data: str | None = None, price: str | None = None) -> dict:
    options = (f" --data {data}" if data else "") + (f" --price {price}" if price else "")
    return json.loads(output(f"elle plan {target}{options} --json"))


#: What the QLoRA recipes of 3B and 7B were before their batch and recomputation were chosen by the planner.
UNTUNED = {"micro_batch_size": 2, "gradient_accumulation_steps": 4, "gradient_checkpointing": True}


def tuned(name: str, gpu: str = "h200") -> str:
    """How many times as fast a recipe is planned to be as it was UNTUNED, on one GPU (in the middle of both
    intervals)."""
    now = preflight.plan(f"configs/{name}.yaml", gpu=gpu, count=1, data="basic")
    hours = [sum(plan.budget.training_hours) for plan in (planning.varied(now, **UNTUNED), now)]
    return f"{hours[0] / hours[1]:.1f}"


def layers() -> list[dict[str, str]]:
    """The planner's coefficients of a layer; in brackets with `lora_dropout`."""
    names = {
        "full": "full",
        "upcast": "full, without DeepSpeed under sdpa (hidden states in fp32: 4ThL kept with recomputation)",
        "kernels": "LoRA and QLoRA by Axolotl's kernels",
        "qlora": "QLoRA without them",
        "lora": "LoRA without them",
    }

    def cell(way: str, name: str) -> str:
        of, place = (memory.KEPT if name in "Kk" else memory.LAYER), int(name.islower())
        plain, dropped = (of.get((way, dropout), of[way, False])[place] for dropout in (False, True))
        return f"{plain}" if plain == dropped else f"{plain} ({dropped})"

    return [{"trained": name} | {key: cell(way, key) for key in "KkRr"} for way, name in names.items()]


def shares() -> list[dict[str, str]]:
    """Shares of a card's dense bf16 peak, by generation."""

    def cell(generation: str, method: str) -> str:
        low, high = speed.SHARES[generation, method]
        return f"{100 * low:g}–{100 * high:g} %"

    listed = yaml_files.config_table("gpus")["gpus"].values()
    return [
        {
            "generation": generation.capitalize(),
            "cards": ", ".join(row["title"] for row in listed if row.get("generation") == generation),
            "full": cell(generation, "full"),
            "LoRA, QLoRA": cell(generation, "lora"),
        }
        for generation in dict.fromkeys(generation for generation, _ in speed.SHARES)
    ]


@functools.cache
def gpu() -> dict[str, str]:
    """What real GPUs said (`gpu_rows`), by place."""
    compared = gpu_rows.compare_all(gpu_rows.file())
    ours = [one.row for one in compared if one.ours]

    def measured(row: dict) -> dict[str, str]:
        return {
            "run": row["run"],
            "recipe of that day": row["recipe"],
            "micro × accumulation × tokens": f"{row['micro']} × {row['accumulation']} × {row['sequence']:,}",
            "GB before the first step": f"{row['states_gb']:.1f}",
            "GB after it": f"{row['after_step_gb']:.1f}",
            "GB at the peak: torch, reserved, nvidia-smi": ", ".join(
                f"{row[key]:.1f}" for key in ("peak_gb", "reserved_gb", "driver_gb")
            ),
            "steps timed": f"{len(row['step_s']) - 1}",
            "seconds per step": f"{row['median_step_s']:.2f}",
            "tokens/s": f"{row['row_tokens_per_s']:,}",
            "share of the peak": f"{_share(row):.0%}",
        }

    return {
        "gpu layers": markdown(layers()),
        "gpu shares": markdown(shares()),
        "gpu rows": markdown(gpu_rows.table(compared)),
        "gpu summary": gpu_rows.summary(compared),
        "gpu measured": markdown([measured(row) for row in ours]),
        "gpu versions": "; ".join(sorted({row["source"].removeprefix(f"{gpu_rows.MEASURED}, ") for row in ours})),
    }


def _share(row: dict) -> float:
    """Share of the card's dense bf16 peak, at 6 FLOP per parameter and token whatever is done."""
    machine, model = hardware.find(row["gpu"], row["gpus"]), models.find(row["model"])
    return 6 * model.parameters * row["row_tokens_per_s"] / (machine.tflops * 1e12 * row["gpus"])


@functools.cache
def course() -> dict[str, str]:
    """The parts of the published run's report."""
    return report_parts.parts(storage.read_json(paths.published()))


def figure(what: str) -> str:
    """Raises ElleError: not of the form that is explained above, or an unknown figure."""
    if match := TUNED.fullmatch(what):
        return tuned(match["name"], match["gpu"] or "h200")
    match = FIGURE.fullmatch(what)
    if match and match["target"] == "course":
        parts = course()
        if match["name"] not in parts:
            raise unknown("part", match["name"], parts, where="docs/")
        text = parts[match["name"]]
        return f"\n{text}\n" if "\n" in text else text
    if not match:
        raise ElleError(f"not a figure: {what!r}", where="docs/", fix="such as `beast on documents-cic: dollars`")
    if match["name"] not in FIGURES:
        raise unknown("figure", match["name"], FIGURES, where="docs/")
    return FIGURES[match["name"]](answered(match["target"], match["data"], match["price"]))


def judged(ours: dict, theirs: dict) -> str:
    """Whether the budget holds on the profile's own set; if it does there alone, that this is due to the data."""
    allowed = money(ours["budget"])
    holds = "holds" if ours["dollars"]["high"] <= (1 - NARROW) * ours["budget"] else "holds narrowly"
    if ours["dollars"]["high"] > ours["budget"]:
        return f"{allowed} does not hold: {over(ours)} over on our set"
    if theirs["dollars"]["high"] > theirs["budget"]:
        return f"{allowed} {holds}, because our data is shorter: {over(theirs)} over on the documents'"
    return f"{allowed} {holds}"


def table(folder: Path) -> str:
    """All documented plans; links lead from a page in `folder`."""
    head = ("profile", "trains", "on", "documented", "planned, our set", "planned, documents' data", "budget")
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, guide, trains, hours, dollars, data in PLANS:
        ours, theirs = answered(name), answered(name, data)
        link = os.path.relpath(paths.root() / "docs" / f"{guide}.md", folder)
        planned = [f"{a['verdict']}; {FIGURES['hours'](a)}, {FIGURES['dollars'](a)}" for a in (ours, theirs)]
        cells = (f"[{name}]({link})", trains, ours["plans"][0]["hardware"], f"{hours}, {dollars}", *planned)
        rows.append(f"| {' | '.join(cells)} | {judged(ours, theirs)} |")
    return "\n".join(rows)


def metrics() -> str:
    """What the evaluation measures, as a table."""
    return markdown(
        [
            {
                "metric": f"`{name}`",
                "version": str(metric.version),
                "definition": metric.definition,
                "counts": "outputs with an object" if metric.of_objects else "all rows",
                "95 % interval": "Wilson" if metric.by_briefing else "bootstrap over briefings",
                "cannot see": metric.unseen,
            }
            for name, metric in METRICS.items()
        ]
    )


def filled(page: Path) -> str:
    """A page's text with all places filled in.

    Raises:
        ElleError: a place that does not end, or what it asks for cannot be had.
    """

    def fill(match: re.Match) -> str:
        what = match["what"]
        if what == "plans":
            text = f"\n{table(page.parent)}\n"
        elif what == "causes":
            rows = [{"cause that is named": case.means, "fix": case.fix} for case in diagnosis.cases()]
            text = f"\n{markdown(rows)}\n"
        elif what == "metrics":
            text = f"\n{metrics()}\n"
        elif what == "grammar":
            text = f"\n{grammar_parts.grammar_page()}\n"
        elif what.startswith("gpu ") and what in gpu():
            text = gpu()[what]
            text = f"\n{text}\n" if text.startswith("|") else text
        elif what.startswith("elle "):
            text = f"\n```text\n$ {what}\n{output(what)}\n```\n"
        else:
            text = figure(what)
        return f"<!-- {what} -->{text}<!-- end -->"

    text = page.read_text(encoding="utf-8")
    if "<!--" in (left := PLACE.sub("", text)):
        raise ElleError(
            f"a comment without its end: {left[left.index('<!--') :][:60]!r}",
            where=paths.shown(page),
            fix="end the place with `<!-- end -->`, on one line",
        )
    return PLACE.sub(fill, text)


def pages() -> list[Path]:
    return [paths.root() / "README.md", *sorted((paths.root() / "docs").glob("*.md"))]


def picture() -> tuple[Path, str]:
    """The picture of docs/costs.md, and the digest of the figures that it is to show."""
    text = economics.costs_text(economics.compare_costs())
    return paths.root() / "docs" / "images" / "costs.png", hashlib.sha256(text.encode()).hexdigest()


def draw(path: Path, digest: str) -> None:
    figure = plots.planning.break_even(
        economics.options(), "What a month of briefings costs (1,500 tokens in, 700 out; Qwen2.5-7B)"
    )
    with storage.atomic(path, "wb") as file:
        figure.savefig(file, format="png", dpi=90, bbox_inches="tight", metadata={"Description": digest})


def stale() -> list[Path]:
    """The pages, and the picture, whose figures are not those that are computed now (at list prices)."""
    os.environ.pop(hardware.PRICE, None)
    output.cache_clear()
    path, digest = picture()
    old = [] if path.exists() and digest.encode() in path.read_bytes() else [path]
    return [page for page in pages() if filled(page) != page.read_text(encoding="utf-8")] + old


def main(arguments: list[str]) -> int:
    outdated = stale()
    for page in outdated:
        if "--check" in arguments:
            print(f"{paths.shown(page)}: its figures are not those that are computed now; run `make docs`")
        else:
            draw(*picture()) if page.suffix == ".png" else storage.write_text(page, filled(page))
            print(f"{paths.shown(page)}: refreshed")
    return int(bool(outdated) and "--check" in arguments)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ElleError as failure:
        sys.exit(f"error: {failure}")
