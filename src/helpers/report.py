"""The report of a run: `report.json` for programs, `report.html` for people, both from the steps' manifests."""

import base64
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

from helpers import jsonl, planning
from helpers.errors import ElleError

HEADLINE = ("json_strict", "json_lenient", "schema", "numeric_precision", "numeric_recall")
#: Beside the headline: what the numbers that the prompt does not print are worth, and whole briefings.
FURTHER = ("derived_accuracy", "risk_words", "all_right")
#: (figure's name in the run's `figures/`, its caption), in the report's order.
FIGURES = (
    ("compliance", "What comes out, before and after training, and with constrained decoding."),
    ("loss", "Learning: the loss, and the step at which the copying of figures is learned."),
    ("risk_map", "What goes in: country risk by scenario."),
    ("distributions", "What goes in: category risks and the length of the examples."),
    ("load", "Serving: throughput and latency by the number of requests at once."),
)


def collect(folder: Path | str, total_seconds: float | None = None) -> dict[str, Any]:
    """What the manifests of a run say, as one JSON value; a part whose step has not run is null ("NOT RUN").

    total_seconds: the run's wall-clock time; by default the sum of its steps'.

    Raises:
        ElleError: no step of the run has finished.
    """
    folder = Path(folder)
    manifests = {path.stem: jsonl.read_json(path) for path in sorted((folder / "manifests").glob("*.json"))}
    if not manifests:
        raise ElleError("no step of this run has finished", where=str(folder), fix="run its notebooks first")
    training, evaluation, serving = (
        manifests[step]["metrics"] if step in manifests else None
        for step in ("05_train", "07_evaluate", "08_serve_vllm")
    )
    cards = evaluation["scorecards"] if evaluation else {}
    seconds = {step: manifest["seconds"] for step, manifest in manifests.items()}
    last = max(manifests.values(), key=lambda manifest: manifest["started"])
    # The data's seed, where it was made; notebooks that simulate something else have seeds of their own.
    by_importance = [manifests[s] for s in ("03_generate_data", *manifests) if s in manifests]
    seeds = [manifest["parameters"]["seed"] for manifest in by_importance if "seed" in manifest["parameters"]]

    def figures(model: str) -> dict | None:
        return cards[model]["metrics"] if model in cards else None

    tuned = figures("tuned")
    return {
        "run": folder.name,
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        **{name: tuned[name] if tuned else None for name in (*HEADLINE, *FURTHER)},
        "base": figures("base"),
        "constrained": figures("constrained"),
        "definitions": cards["tuned"]["definitions"] if tuned else None,
        "coverage": cards["tuned"]["coverage"] if tuned else None,
        "worst": cards["tuned"]["worst"] if tuned else None,
        "train_seconds": training["seconds"] if training else None,
        "training": training,
        "plan": planning.measured(
            manifests["04_plan_the_run"]["metrics"]["plan"] if "04_plan_the_run" in manifests else None,
            training,
        ),
        "claims": manifests["02_cic_on_trial"]["metrics"]["ledger"] if "02_cic_on_trial" in manifests else None,
        "tokens_per_second": serving["tokens_per_second"] if serving else None,
        "serving": serving,
        "total_seconds": round(sum(seconds.values()) if total_seconds is None else total_seconds, 1),
        "step_seconds": seconds,
        "seed": seeds[0] if seeds else None,
        "device": last["device"],
        "versions": last["versions"],
        "not_run": [s for s in ("03_generate_data", "05_train", "07_evaluate", "08_serve_vllm") if s not in manifests],
    }


def verdict(report: dict[str, Any]) -> str:
    """The report's first sentence."""
    if report["json_strict"] is None:
        return f"Nothing was evaluated in this run: {', '.join(report['not_run'])} NOT RUN."
    rows = report["coverage"]["rows"]
    strict, right = report["json_strict"]["value"], report["all_right"]["value"]
    precision = report["numeric_precision"]["value"]
    numbers = "it wrote no numbers" if precision is None else f"{percent(precision)} of its numbers are right"
    return (
        f"Of {rows} unseen briefings, {percent(strict)} came out as valid JSON and {percent(right)} are right in every "
        f"key and number; {numbers}."
    )


def percent(value: float | None) -> str:
    """A share as per cent with one decimal; never rounded up to 100."""
    if value is None:
        return "undefined"
    return "100 %" if value == 1 else f"{min(100 * value, 99.9):.1f} %"


def interval(estimate: dict[str, Any] | None) -> str:
    if estimate is None:
        return "NOT RUN"
    if estimate["value"] is None:
        return "undefined"
    return f"{percent(estimate['value'])} [{percent(estimate['low'])}, {percent(estimate['high'])}]"


def summary(report: dict[str, Any]) -> dict[str, str]:
    """The report's main figures as text, by name: what `elle report` prints and the documentation quotes."""

    def seconds(value: float | None) -> str:
        return "NOT RUN" if value is None else f"{value:.0f} s"

    lines = {"verdict": verdict(report)}
    for label, figures in (("trained", report), ("constrained", report["constrained"]), ("base", report["base"])):
        names = (*HEADLINE, *FURTHER) if label == "trained" else HEADLINE
        lines |= {f"{label} {name}": interval(figures[name] if figures else None) for name in names}
    speed = report["tokens_per_second"]
    return lines | {
        "training": seconds(report["train_seconds"]),
        "whole run": seconds(report["total_seconds"]),
        "served": "NOT RUN" if speed is None else f"{speed:,.0f} tokens a second",
        "seed": str(report["seed"]),
    }


def build(folder: Path | str, total_seconds: float | None = None) -> Path:
    """Write `report.json` and `report.html` (self-contained) into the run's folder; return the page's path."""
    from helpers.evaluation import failures

    folder = Path(folder)
    report = collect(folder, total_seconds)
    jsonl.write_json(folder / "report.json", report)
    pictures = [
        (name, caption, base64.b64encode(path.read_bytes()).decode())
        for name, caption in FIGURES
        if (path := folder / "figures" / f"{name}.png").exists()
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        report=report,
        verdict=verdict(report),
        metrics=(*HEADLINE, *FURTHER),
        pictures=pictures,
        interval=interval,
        worst=[failures.html(record) for record in report["worst"] or []],
    )
    return jsonl.write_text(folder / "report.html", page)
