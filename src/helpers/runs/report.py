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
from elle.base.yaml_files import config_table
from elle.evaluation import audit as data_audit
from elle.evaluation import cost, failures
from helpers.runs import planning
from helpers.runs.results import Manifest, read_manifest

#: The figures that are printed of every model; of the trained ones all are.
HEADLINE = ("json_strict", "json_lenient", "schema", "read", "numeric_precision", "numeric_recall")
#: Scorecard of notebook 07 → its name in the report, in the report's order.
MODELS = {"tuned": "trained", "adapter": "adapter", "constrained": "constrained", "base": "base"}
#: Pictures that stand on the page; all others open on a click.
FIRST = ("compliance", "errors", "loss", "load", "audit")
MAIN = ("03_generate_data", "05_train", "07_evaluate", "08_serve_vllm")


def report_card(folder: Path | str, total_seconds: float | None = None) -> dict[str, Any]:
    """What the manifests of a run say, as one JSON value; a part whose step has not run is null ("NOT RUN").

    The trained model's figures stand under their own names, those of the other models under the model's. total_seconds:
    the run's wall-clock time; by default the sum of its steps'.

    Raises:
        ElleError: no step of the run has finished, or another version of the project wrote a manifest.
    """
    folder = Path(folder)
    read = {path.stem: read_manifest(path) for path in sorted((folder / "manifests").glob("*.json"))}
    if not read:
        raise ElleError("no step of this run has finished", where=str(folder), fix="run its notebooks first")
    manifests = {step: manifest for step, (manifest, _) in read.items()}
    measured = {step: metrics for step, (_, metrics) in read.items()}
    data, training, evaluation, serving = (measured.get(step) for step in MAIN)
    ledger, planned = measured.get("02_cic_on_trial"), measured.get("04_plan_the_run")
    trained = training and training.model_dump()
    plan = planning.with_measured(planned and planned.plan, trained)
    cards = evaluation.scorecards if evaluation else {}
    tuned = cards.get("tuned", {})
    faults = data_audit.verdict(folder / "data") if (folder / "data" / "manifest.json").exists() else None
    audit = None if faults is None else {"passed": not faults, "faults": faults}
    seconds = {step: manifest.seconds for step, manifest in manifests.items()}
    # The data's seed, where it was made; notebooks that simulate something else have seeds of their own.
    seeds = [manifests[step].parameters.get("seed") for step in (MAIN[0], *manifests) if step in manifests]
    last = max(manifests.values(), key=lambda manifest: manifest.started)
    return {
        **dict.fromkeys((*HEADLINE, "all_right")),
        **tuned.get("metrics", {}),
        "run": folder.name,
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        **{model: cards[model]["metrics"] if model in cards else None for model in MODELS if model != "tuned"},
        "strict": {model: card["strict"] for model, card in cards.items() if "strict" in card},
        "differences": evaluation and evaluation.differences,
        **{name: tuned.get(name) for name in ("definitions", "coverage", "worst")},
        "warnings": _warnings(folder, manifests, training, cards, audit),
        "data": data and data.model_dump(),
        "audit": audit,
        "train_seconds": training and training.seconds,
        "training": trained,
        "plan": plan,
        "claims": ledger and ledger.ledger,
        "stacking": measured.get("06_stack_on_math"),
        "tokens_per_second": serving and serving.tokens_per_second,
        "serving": serving and serving.model_dump(),
        "cost": _cost(folder, manifests, cards, plan, training, serving),
        "total_seconds": round(sum(seconds.values()) if total_seconds is None else total_seconds, 1),
        "step_seconds": seconds,
        "seed": next((seed for seed in seeds if seed is not None), None),
        "machine": last.machine,
        "device": last.device,
        "versions": last.versions,
        "not_run": [step for step in MAIN if step not in manifests],
    }


def _warnings(folder: Path, manifests: Mapping[str, Manifest], training: Any, cards: Mapping, audit: Any) -> list[str]:
    """What a reader must know before the figures."""
    warnings = []
    if audit and not audit["passed"]:
        faults = audit["faults"]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        warnings.append(f"the data fails its audit: {faults[0]}{more}")
    warnings += [f"the training was forced: {reason}" for reason in (training.forced if training else ())]
    if training and training.red_flags:
        warnings.append(f"the training shows a red flag: {', '.join(training.red_flags)}")
    for model, card in cards.items():
        rows, outputs = card["coverage"]["rows"], card["coverage"]["outputs"]
        if outputs < rows:
            label = MODELS.get(model, model)
            warnings.append(f"{label}: {rows - outputs:,} of {rows:,} briefings have no answer, a failure")
    warnings += [
        f"{step} is of another {name} than this run now holds: run it again"
        for step, manifest in manifests.items()
        for name, digest in manifest.inputs.items()
        if name in manifests
        and not manifest.whole_run  # a step that sums up is made anew
        and digest != storage.sha256(folder / "manifests" / f"{name}.json")
    ]
    return warnings


def _cost(
    folder: Path, manifests: Mapping[str, Manifest], cards: Mapping, plan: Mapping | None, training: Any, serving: Any
) -> dict[str, Any]:
    """What briefings and training took. requests: model → tokens and seconds per request (null where no output says
    it); dollars, each from low to high, null where the price of the machine is unknown, 0 on one's own processor: for
    an hour of the machine, the training, and a briefing at the highest throughput measured, at `concurrency` requests
    at once."""
    files = {model: folder / "outputs" / f"{model}.jsonl" for model in MODELS if model in cards}
    requests = {
        model: {name: each and asdict(each) for name, each in cost.request_means(storage.read_lines(path)).items()}
        for model, path in files.items()
        if path.exists()
    }

    def spent(step: str, seconds: float, briefings: int = 1) -> dict[str, float] | None:
        hourly = _hourly(manifests.get(step), plan)
        if hourly is None or not briefings:
            return None
        return {end: cost.per_hour(dollars, seconds, briefings) for end, dollars in hourly.items()}

    free = [point for point in serving.points if not point["constrained"]] if serving else []
    best = max(free, key=lambda point: point["tokens_per_second"], default=None)
    return {
        "requests": requests,
        "an_hour": spent("08_serve_vllm", 3600),
        "training": spent("05_train", training.seconds if training else 0),
        "a_briefing": best and spent("08_serve_vllm", best["seconds"], best["requests"] - best["failed"]),
        "concurrency": best and best["concurrency"],
    }


def _hourly(manifest: Manifest | None, plan: Mapping | None) -> dict[str, float] | None:
    """Dollars per hour, low and high, of the machine that a step ran on: as notebook 04 planned it."""
    if manifest and manifest.device.startswith("cpu"):
        return {"low": 0.0, "high": 0.0}
    plans = plan["plans"] if manifest and plan else []
    planned = next((each for each in plans if each["measured_hours"] is not None), plans[0] if plans else None)
    if not planned or not all((*planned["hours"].values(), *planned["dollars"].values())):
        return None
    return {end: planned["dollars"][end] / planned["hours"][end] for end in ("low", "high")}


def overall_verdict(report: Mapping[str, Any]) -> str:
    """The report's first sentence."""
    if report["json_strict"] is None:
        return f"Nothing was evaluated in this run: {', '.join(report['not_run'])} NOT RUN."
    strict, right, precision = (report[name]["value"] for name in ("json_strict", "all_right", "numeric_precision"))
    read = report.get("read")  # none in a report of an earlier version
    numbers = f"{percent(precision)} of {'the numbers that were read' if read else 'its numbers'} are right"
    if precision is None:
        numbers = "no number of it was read" if read else "it wrote no numbers"
    elif read:
        numbers += f", and {percent(read['value'])} of all numbers and sentences were read"
    return (
        f"Of {report['coverage']['rows']} unseen briefings, {percent(strict)} came out as valid JSON and "
        f"{percent(right)} are right in all that is checked; {numbers}."
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


def difference(compared: Mapping[str, Any] | None) -> str:
    """One metric's difference from the trained model, in percentage points, and Holm's p; empty where there is none."""
    if compared is None or compared["difference"] is None:
        return ""
    points = [100 * compared[key] for key in ("difference", "low", "high")]
    value, low, high = (f"{each:+.1f}".replace("-", "−") if each else "0.0" for each in points)
    p = compared["p_holm"]
    return f"{value} [{low}, {high}], p {'< 0.001' if p < 0.001 else f'= {p:.2g}'}"


def range_text(dollars: Mapping[str, float] | None) -> str:
    """Dollars from low to high; free on one's own processor, NOT RUN where the price is unknown."""
    if dollars is None:
        return "NOT RUN"
    low, high = (
        f"{Decimal(f'{dollars[end]:.2g}'):f}" if dollars[end] < 0.1 else f"{dollars[end]:,.2f}"
        for end in ("low", "high")
    )
    return "free" if not dollars["high"] else f"${low}" if low == high else f"${low} to ${high}"


def evaluated_models(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Model → its figures, for those that were evaluated, in the report's order."""
    figures = {model: report if model == "tuned" else report[model] for model in MODELS}
    return {model: each for model, each in figures.items() if each and (model != "tuned" or report["definitions"])}


def metric_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table of figures, a row per metric: metric, version, definition, coverage (the trained model's n, and the
    rows that have anything it counts, where that is known), defined (for any of the models), and cells: the name of a
    model → value, strict (where it differs) and difference (from the trained model), as text."""
    judged = (report["coverage"] or {}).get("judged", {})
    models = evaluated_models(report)

    def cell(model: str, name: str) -> dict[str, Any]:
        lenient, strict = models[model].get(name), report["strict"].get(model, {}).get(name)
        own = name.startswith(("json", "schema"))  # of these strict and lenient are metrics of their own
        differs = lenient and strict and not own and strict["value"] != lenient["value"]
        compared = ((report["differences"] or {}).get(model) or {}).get("metrics", {}).get(name)
        return {
            "value": interval(lenient),
            "strict": interval(strict) if differs else "",
            "difference": difference(compared),
            "sure": bool(compared) and compared["p_holm"] is not None and compared["p_holm"] < 0.05,
        }

    return [
        {
            "metric": name,
            **{key: meaning.get(key, "") for key in ("version", "definition", "unseen")},
            "coverage": f"{report[name]['n']:,}" + (f" in {judged[name]:,} rows" if name in judged else ""),
            "defined": any(figures[name]["value"] is not None for figures in models.values() if name in figures),
            "cells": {MODELS[model]: cell(model, name) for model in models},
        }
        for name, meaning in (report["definitions"] or {}).items()
    ]


def missing(report: Mapping[str, Any]) -> dict[str, str]:
    """What was not run → why, or which notebook does it."""
    reasons = dict.fromkeys(report["not_run"], "its notebook has not run")
    if report["definitions"]:
        why = {"adapter": "notebook 05 trains one if its recipe_adapter names a recipe"}
        models = evaluated_models(report)
        reasons |= {name: why.get(model, "") for model, name in MODELS.items() if model not in models}
        if report["differences"] is None:
            reasons["differences"] = "the evaluation is of an earlier version: run notebook 07 again"
    if report["audit"] is None:
        reasons["audit of the data"] = "notebook 03 makes it"
    if report["training"] and report["training"]["red_flags"] is None:
        reasons["health of the training"] = "the training is of an earlier version: run notebook 05 again"
    if report["serving"] and report["cost"]["a_briefing"] is None:
        reasons["dollars"] = "the price of the machine is unknown: notebook 04 plans with one"
    if report["claims"] is None:
        reasons["the framework's claims"] = "notebook 02, or elle claims, puts them on trial"
    return reasons


def summary(report: Mapping[str, Any]) -> dict[str, str]:
    """The report's main figures as text, by name: what `elle report` prints and the documentation quotes."""
    lines = {"verdict": overall_verdict(report)}
    if report["warnings"]:
        lines["warning"] = "; ".join(report["warnings"])
    models = evaluated_models(report)
    for model, label in MODELS.items():
        if model == "adapter" and model not in models:
            lines[label] = "NOT RUN"
            continue
        whole = list(report["definitions"] or (*HEADLINE, "all_right"))
        names = whole if model in ("tuned", "adapter") else [name for name in HEADLINE if name in whole]
        lines |= {f"{label} {name}": interval(models.get(model, {}).get(name)) for name in names}
    for model, compared in (report["differences"] or {}).items():
        text = difference(compared["metrics"]["all_right"])
        lines[f"{MODELS.get(model, model)} Δ all_right"] = f"{text}, percentage points" if text else "undefined"
    for name, model in ((report["stacking"] or {}).get("models") or {}).items():
        lines[f"stacked {name}"] = "; ".join(f"{kind} {interval(model['pooled'][kind])}" for kind in ("sums", "gain"))
    took, speed = report["train_seconds"], report["tokens_per_second"]
    return lines | {
        "training": "NOT RUN" if took is None else f"{took:.0f} s",
        "whole run": f"{report['total_seconds']:.0f} s",
        "served": "NOT RUN" if speed is None else f"{speed:,.0f} tokens a second",
        "dollars a briefing": range_text(report["cost"]["a_briefing"]),
        "seed": str(report["seed"]),
    }


def smaller_png(picture: bytes, colours: int = 64) -> bytes:
    """A picture with so many colours: a third of the size, and figures, which have few, look the same."""
    from PIL import Image

    small = io.BytesIO()
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    # Pillow's default (median cut) loses the colour of a thin line.
    image.quantize(colours, method=Image.Quantize.FASTOCTREE).save(small, "PNG", optimize=True)
    return small.getvalue()


def write_report(folder: Path | str, total_seconds: float | None = None) -> Path:
    """Write `report.json` and `report.html` (self-contained) into the run's folder; return the page's path."""
    folder = Path(folder)
    report = report_card(folder, total_seconds)
    storage.write_json(folder / "report.json", report)
    files = {path.stem: path for path in sorted((folder / "figures").glob("*.png"))}
    drawn = [row.get("pictures", {}) for row in config_table("course").values()]
    captions = {name: caption for pictures in drawn for name, caption in pictures.items()}
    pictures = [
        (captions.get(name, name.replace("_", " ")), base64.b64encode(smaller_png(files[name].read_bytes())).decode())
        for name in dict.fromkeys([*FIRST, *captions, *files])
        if name in files
    ]
    first = sum(name in files for name in FIRST)
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
        pictures=pictures[:first],
        further=pictures[first:],
        percent=percent,
        interval=interval,
        span=range_text,
        worst=[failures.failure_html(record) for record in report["worst"] or []],
    )
    return storage.write_text(folder / "report.html", page)
