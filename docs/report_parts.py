"""Parts of a run's report as markdown, for the project's own pages: `docs/refresh.py` puts them there."""

from collections.abc import Mapping
from typing import Any

from elle.base.tables import markdown
from elle.serving import answers
from helpers import cli
from helpers.runs import report

#: The figures of the README's table; all others are in docs/measured.md.
CHOSEN = ("json_strict", "schema", "numeric_precision", "numeric_recall", "derived_accuracy", "words", "all_right")
NAMES = {"constrained": "trained, held to the schema", "adapter": "with a QLoRA adapter", "base": "untrained base"}


def parts(card: Mapping[str, Any]) -> dict[str, str]:
    """Name → markdown, of a run that has trained, evaluated and served: `figures`, `report`, `steps`, `training`,
    `load`, `machine`, and single ones that stand within a line (`seconds`, `of` all seconds, `served` tokens per
    second, `learned` at which step, `date`, `minutes` in all)."""
    serving, training = card["serving"], card["training"]
    versions = ", ".join(f"{name} {number}" for name, number in card["versions"].items())
    return {
        "machine": f"{card['machine']}; {card['device'].rstrip('.')}. {versions}.",
        "date": card["created"][:10],
        "seconds": f"{card['train_seconds']:,.0f}",
        "of": f"{card['total_seconds']:,.0f}",
        "minutes": f"{card['total_seconds'] / 60:.0f}",
        "served": f"{card['tokens_per_second']:,.0f}",
        "learned": str(training["learned_at"]),
        "figures": _figures(card),
        "report": f"```text\n{cli.value_lines(report.summary(card))}\n```",
        "steps": ", ".join(f"{step} {seconds:,.0f}" for step, seconds in card["step_seconds"].items()),
        "training": markdown([_training(row) for row in training["trainings"]]),
        "load": markdown(answers.load_table(serving["points"])),
    }


def _figures(card: Mapping[str, Any]) -> str:
    return markdown(
        [
            {"": row["metric"]} | {NAMES.get(model, model): cell["value"] for model, cell in row["cells"].items()}
            for row in report.metric_rows(card)
            if row["metric"] in CHOSEN
        ]
    )


def _training(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else f"{value:.4f}" if "loss" in name else f"{value:,.0f}"
        for name, value in row.items()
    }
