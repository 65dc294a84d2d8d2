"""The report of a run: `report.json` for programs, `report.html` for people, both from the steps' manifests.

Whatever a run has not done says so ("NOT RUN"), and so does what the manifest of an older run does not hold.
"""

import base64
import io
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import jinja2

from elle.base import storage
from elle.base.errors import ElleError
from helpers.runs import planning

#: The figures that are printed of every model; of the trained ones all are.
HEADLINE = ("json_strict", "json_lenient", "schema", "numeric_precision", "numeric_recall")
#: Scorecard of notebook 07 → its name in the report, in the report's order.
MODELS = {"tuned": "trained", "adapter": "adapter", "constrained": "constrained", "base": "base"}
#: Why a model is missing where notebook 07 has run.
WITHOUT = {"adapter": "notebook 05 trains one if its recipe_adapter names a recipe"}
#: What these metrics are of is the reading itself: strict and lenient are metrics of their own.
READING = ("json", "schema")
#: Picture in the run's `figures/` → its caption. The first ones stand on the page, all others open on a click.
FIGURES = {
    "compliance": "What comes out, model by model.",
    "errors": "Where the errors of the trained model gather.",
    "loss": "Learning: the loss, and the step at which the copying of figures is learned.",
    "load": "Serving: throughput and latency by the number of requests at once.",
    "audit": "What goes in: the audit of the data.",
}
FURTHER = {
    "differences": "By how much another model surpasses the trained one.",
    "training": "Learning: rate, gradient norm, speed.",
    "histories": "What goes in: simulated histories.",
    "phases": "What goes in: the phase plane.",
    "risk_map": "What goes in: country risk by scenario.",
    "cic_integration": "The framework: integration, measured.",
    "cic_phase_map": "The framework: which phase where.",
    "stacking": "Stacking on mathematics: what was kept, and what was gained.",
    "stacking_figures": "Stacking on mathematics: each computed figure.",
    "stacking_stage1": "Stacking on mathematics: the first stage learns sums.",
    "costs": "What a month of briefings costs: by an API, always on, serverless.",
    "steps": "Where the time went.",
}
#: What the training of an older run does not say.
_LATER = ("precision", "red_flags", "trainings")
_MAIN = ("03_generate_data", "05_train", "07_evaluate", "08_serve_vllm")


def report_card(folder: Path | str, total_seconds: float | None = None) -> dict[str, Any]:
    """What the manifests of a run say, as one JSON value; a part whose step has not run is null ("NOT RUN").

    The trained model's figures stand under their own names, those of the other models under the model's. total_seconds:
    the run's wall-clock time; by default the sum of its steps'.

    Raises:
        ElleError: no step of the run has finished.
    """
    folder = Path(folder)
    manifests = {path.stem: storage.read_json(path) for path in sorted((folder / "manifests").glob("*.json"))}
    if not manifests:
        raise ElleError("no step of this run has finished", where=str(folder), fix="run its notebooks first")
    metrics = {step: manifest["metrics"] for step, manifest in manifests.items()}
    data, training, evaluation, serving = (metrics.get(step) for step in _MAIN)
    cards = evaluation["scorecards"] if evaluation else {}
    seconds = {step: manifest["seconds"] for step, manifest in manifests.items()}
    last = max(manifests.values(), key=lambda manifest: manifest["started"])
    # The data's seed, where it was made; notebooks that simulate something else have seeds of their own.
    by_importance = [manifests[s] for s in ("03_generate_data", *manifests) if s in manifests]
    seeds = [manifest["parameters"]["seed"] for manifest in by_importance if "seed" in manifest["parameters"]]
    tuned = cards.get("tuned")
    plan = planning.with_measured(metrics.get("04_plan_the_run", {}).get("plan"), training)
    audit = _audit(folder)
    return {
        **dict.fromkeys((*HEADLINE, "all_right")),
        **(tuned["metrics"] if tuned else {}),
        "run": folder.name,
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        **{model: cards[model]["metrics"] if model in cards else None for model in MODELS if model != "tuned"},
        "strict": {model: card["strict"] for model, card in cards.items() if "strict" in card},
        "differences": evaluation.get("differences") if evaluation else None,
        "definitions": tuned["definitions"] if tuned else None,
        "coverage": tuned["coverage"] if tuned else None,
        "worst": tuned["worst"] if tuned else None,
        "warnings": _warnings(folder, manifests, cards, audit),
        "data": data,
        "audit": audit,
        "train_seconds": training["seconds"] if training else None,
        "training": training and dict.fromkeys(_LATER) | training,
        "plan": plan,
        "claims": metrics.get("02_cic_on_trial", {}).get("ledger"),
        "stacking": metrics.get("06_stack_on_math"),
        "tokens_per_second": serving["tokens_per_second"] if serving else None,
        "serving": serving,
        "cost": _cost(folder, manifests, cards, plan),
        "total_seconds": round(sum(seconds.values()) if total_seconds is None else total_seconds, 1),
        "step_seconds": seconds,
        "seed": seeds[0] if seeds else None,
        "machine": last.get("machine", ""),
        "device": last["device"],
        "versions": last["versions"],
        "not_run": [step for step in _MAIN if step not in manifests],
    }


def _audit(folder: Path) -> dict[str, Any] | None:
    """Whether the run's data passed its audit, and its faults; None where it was not audited."""
    from elle.evaluation import audit

    if not (folder / "data" / "manifest.json").exists():
        return None
    faults = audit.verdict(folder / "data")
    return None if faults is None else {"passed": not faults, "faults": faults}


def _warnings(folder: Path, manifests: Mapping, cards: Mapping, audit: Mapping | None) -> list[str]:
    """What a reader must know before the figures."""
    found = []
    if audit and not audit["passed"]:
        faults = audit["faults"]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        found.append(f"the data fails its audit: {faults[0]}{more}")
    training = manifests["05_train"]["metrics"] if "05_train" in manifests else {}
    found += [f"the training was forced: {reason}" for reason in training.get("forced") or []]
    if flags := training.get("red_flags"):
        found.append(f"the training shows a red flag: {', '.join(flags)}")
    for model, card in cards.items():
        rows, outputs = card["coverage"]["rows"], card["coverage"]["outputs"]
        if outputs < rows:
            found.append(
                f"{MODELS.get(model, model)}: {rows - outputs:,} of {rows:,} briefings have no answer, a failure"
            )
    for step, manifest in manifests.items():
        read = {} if manifest.get("whole_run") else manifest["inputs"]  # a step that sums up is made anew
        found += [
            f"{step} is of another {name} than this run now holds: run it again"
            for name, digest in read.items()
            if name in manifests and digest != storage.sha256(folder / "manifests" / f"{name}.json")
        ]
    return found


def _cost(folder: Path, manifests: Mapping, cards: Mapping, plan: Mapping | None) -> dict[str, Any]:
    """What briefings and training took. requests: model → tokens and seconds a request (null where no output says it);
    dollars, each from low to high, null where the price of the machine is unknown, 0 on one's own processor: an hour of
    the machine, the training, and a briefing at the highest throughput measured, at `concurrency` requests at once."""
    from elle.evaluation import cost

    files = {model: folder / "outputs" / f"{model}.jsonl" for model in MODELS if model in cards}
    requests = {
        model: {name: each and asdict(each) for name, each in cost.request_means(storage.read_lines(path)).items()}
        for model, path in files.items()
        if path.exists()
    }
    plans = (plan or {}).get("plans") or [{}]
    first = next((each for each in plans if each.get("measured_hours") is not None), plans[0])
    planned = [
        first[unit][end] if first.get(unit) else None for unit in ("hours", "dollars") for end in ("low", "high")
    ]

    def hourly(step: str) -> list[float] | None:
        """Dollars an hour, low and high, of the machine that a step ran on: as notebook 04 planned it."""
        if step not in manifests:
            return None
        if manifests[step]["device"].startswith("cpu"):
            return [0.0, 0.0]
        low, high, cheap, dear = planned
        return [cheap / low, dear / high] if all(planned) and low and high else None

    def spent(rate: list[float] | None, seconds: float, briefings: int) -> dict[str, float] | None:
        if rate is None or not briefings:
            return None
        return dict(zip(("low", "high"), (cost.per_hour(each, seconds, briefings) for each in rate), strict=True))

    training, serving = (manifests.get(step, {}).get("metrics", {}) for step in ("05_train", "08_serve_vllm"))
    free = [point for point in serving.get("points", []) if not point["constrained"]]
    best = max(free, key=lambda point: point["tokens_per_second"], default=None)
    return {
        "requests": requests,
        "an_hour": spent(hourly("08_serve_vllm"), 3600, 1),
        "training": spent(hourly("05_train"), training.get("seconds", 0), 1),
        "a_briefing": best and spent(hourly("08_serve_vllm"), best["seconds"], best["requests"] - best["failed"]),
        "concurrency": best and best["concurrency"],
    }


def overall_verdict(report: Mapping[str, Any]) -> str:
    """The report's first sentence."""
    if report["json_strict"] is None:
        return f"Nothing was evaluated in this run: {', '.join(report['not_run'])} NOT RUN."
    rows = report["coverage"]["rows"]
    strict, right = report["json_strict"]["value"], report["all_right"]["value"]
    precision = report["numeric_precision"]["value"]
    numbers = "it wrote no numbers" if precision is None else f"{percent(precision)} of its numbers are right"
    return (
        f"Of {rows} unseen briefings, {percent(strict)} came out as valid JSON and {percent(right)} are right in all "
        f"that is checked; {numbers}."
    )


def percent(value: float | None) -> str:
    """A share as per cent with one decimal; never rounded up to 100."""
    if value is None:
        return "undefined"
    return "100 %" if value == 1 else f"{min(100 * value, 99.9):.1f} %"


def interval(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        return "NOT RUN"
    if estimate["value"] is None:
        return "undefined"
    return f"{percent(estimate['value'])} [{percent(estimate['low'])}, {percent(estimate['high'])}]"


def difference(found: Mapping[str, Any] | None) -> str:
    """One metric's difference from the trained model, in percentage points, and Holm's p; empty where there is none."""
    if found is None or found["difference"] is None:
        return ""
    value, low, high = (
        f"{100 * found[key]:+.1f}".replace("-", "−") if found[key] else "0.0" for key in ("difference", "low", "high")
    )
    p = found["p_holm"]
    return f"{value} [{low}, {high}], p {'< 0.001' if p < 0.001 else f'= {p:.2g}'}"


def range_text(dollars: Mapping[str, float] | None) -> str:
    """Dollars from low to high; none on one's own processor, NOT RUN where the price is unknown."""
    if dollars is None:
        return "NOT RUN"
    low, high = (
        f"{Decimal(f'{dollars[end]:.2g}'):f}" if dollars[end] < 0.1 else f"{dollars[end]:,.2f}"
        for end in ("low", "high")
    )
    return "free" if not dollars["high"] else f"${low}" if low == high else f"${low} to ${high}"


def evaluated_models(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Model → its figures, for those that were evaluated, in the report's order."""
    found = {"tuned": report if report["definitions"] else None} | {m: report[m] for m in MODELS if m != "tuned"}
    return {model: found[model] for model in MODELS if found[model]}


def metric_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table of figures, a row a metric: metric, version, definition, coverage (the trained model's n, and the rows
    that have anything it counts, where that is known), defined (for any of the models), and cells: the name of a model
    → value, strict (where it differs) and difference (from the trained model), as text."""
    judged = (report["coverage"] or {}).get("judged", {})
    there = evaluated_models(report)

    def cell(model: str, name: str) -> dict[str, Any]:
        lenient, strict = there[model].get(name), report["strict"].get(model, {}).get(name)
        differs = lenient and strict and not name.startswith(READING) and strict["value"] != lenient["value"]
        compared = ((report["differences"] or {}).get(model) or {}).get("metrics", {}).get(name)
        return {
            "value": interval(lenient),
            "strict": interval(strict) if differs else "",
            "difference": difference(compared),
            "sure": bool(compared) and compared["p_holm"] is not None and compared["p_holm"] < 0.05,
        }

    return [
        {"metric": name}
        | {key: meaning.get(key, "") for key in ("version", "definition", "unseen")}
        | {"coverage": f"{report[name]['n']:,}" + (f" in {judged[name]:,} rows" if name in judged else "")}
        | {"defined": any(figures[name]["value"] is not None for figures in there.values() if name in figures)}
        | {"cells": {MODELS[model]: cell(model, name) for model in there}}
        for name, meaning in (report["definitions"] or {}).items()
    ]


def missing(report: Mapping[str, Any]) -> dict[str, str]:
    """What was not run → why, or which notebook does it."""
    found = dict.fromkeys(report["not_run"], "its notebook has not run")
    if report["definitions"]:
        there = evaluated_models(report)
        found |= {name: WITHOUT.get(model, "") for model, name in MODELS.items() if model not in there}
        if report["differences"] is None:
            found["differences"] = "the evaluation is of an earlier version: run notebook 07 again"
    if report["audit"] is None:
        found["audit of the data"] = "notebook 03 makes it"
    if report["training"] and report["training"]["red_flags"] is None:
        found["health of the training"] = "the training is of an earlier version: run notebook 05 again"
    if report["serving"] and report["cost"]["a_briefing"] is None:
        found["dollars"] = "the price of the machine is unknown: notebook 04 plans with one"
    if report["claims"] is None:
        found["the framework's claims"] = "notebook 02, or elle claims, puts them on trial"
    return found


def summary(report: Mapping[str, Any]) -> dict[str, str]:
    """The report's main figures as text, by name: what `elle report` prints and the documentation quotes."""

    def seconds(value: float | None) -> str:
        return "NOT RUN" if value is None else f"{value:.0f} s"

    lines = {"verdict": overall_verdict(report)} | (
        {"warning": "; ".join(report["warnings"])} if report["warnings"] else {}
    )
    there = evaluated_models(report)
    for model, label in MODELS.items():
        if model == "adapter" and model not in there:
            lines[label] = "NOT RUN"
            continue
        whole = model in ("tuned", "adapter")
        names = list(report["definitions"] or (*HEADLINE, "all_right")) if whole else HEADLINE
        lines |= {f"{label} {name}": interval(there[model].get(name) if model in there else None) for name in names}
    for model, compared in (report["differences"] or {}).items():
        found = difference(compared["metrics"]["all_right"])
        lines[f"{MODELS.get(model, model)} Δ all_right"] = f"{found}, percentage points" if found else "undefined"
    for name, model in ((report["stacking"] or {}).get("models") or {}).items():
        shares = (f"{kind} {interval(model['pooled'][kind])}" for kind in ("sums", "gain"))
        lines[f"stacked {name}"] = "; ".join(shares)
    speed, cost = report["tokens_per_second"], report["cost"]
    return lines | {
        "training": seconds(report["train_seconds"]),
        "whole run": seconds(report["total_seconds"]),
        "served": "NOT RUN" if speed is None else f"{speed:,.0f} tokens a second",
        "dollars a briefing": range_text(cost["a_briefing"]),
        "seed": str(report["seed"]),
    }


def picture(path: Path) -> str:
    """A PNG with a palette of 128 colours, a third of the size (figures have few), in base64."""
    from PIL import Image

    with Image.open(path) as image, io.BytesIO() as file:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
        return base64.b64encode(file.getvalue()).decode()


def write_report(folder: Path | str, total_seconds: float | None = None) -> Path:
    """Write `report.json` and `report.html` (self-contained) into the run's folder; return the page's path."""
    from elle.evaluation import failures

    folder = Path(folder)
    report = report_card(folder, total_seconds)
    storage.write_json(folder / "report.json", report)
    made = {path.stem: path for path in sorted((folder / "figures").glob("*.png"))}
    first, further = (
        [(captions.get(name, name.replace("_", " ")), picture(made[name])) for name in names]
        for captions, names in (
            (FIGURES, [name for name in FIGURES if name in made]),
            (FURTHER, [name for name in made if name not in FIGURES]),
        )
    )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        report=report,
        verdict=overall_verdict(report),
        rows=metric_rows(report),
        models=evaluated_models(report),
        names=MODELS,
        missing=missing(report),
        pictures=first,
        further=further,
        percent=percent,
        interval=interval,
        span=range_text,
        worst=[failures.failure_html(record) for record in report["worst"] or []],
    )
    return storage.write_text(folder / "report.html", page)
