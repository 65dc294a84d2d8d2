"""The figures as text, for people: one model, or two side by side."""

from collections.abc import Iterable, Mapping

from elle.evaluation.compare import Comparison
from elle.evaluation.scorecard import Scorecard
from elle.evaluation.statistics import Interval
from elle.evaluation.verdict import Record


def figures_text(card: Scorecard) -> str:
    """Metric, value, 95 % interval, the value where only strict JSON counts, n, and coverage: the share of rows that
    have anything the metric counts."""
    lines = [("metric", "value", "95 % interval", "strict", "n", "coverage")]
    for name, found in card.metrics.items():
        covered = sum(record.counts[name][1] > 0 for record in card.records) / len(card.records)
        interval = "" if found.low is None else f"[{found.low:.4f}, {found.high:.4f}]"
        lines.append(
            (name, _share(found.value), interval, _share(card.strict[name].value), f"{found.n:,}", f"{covered:.1%}")
        )
    return f"{_aligned(lines)}\n\n{card.outputs:,} of {len(card.records):,} rows have an output"


def requests(found: Mapping[str, Interval | None]) -> str:
    """What a request took (`cost.summary`), of what the outputs' file says; empty where it says nothing."""
    lines = [("a request", "mean", "95 % interval", "n")]
    for name, each in found.items():
        if each is not None:
            lines.append((name, f"{each.value:.4g}", f"[{each.low:.4g}, {each.high:.4g}]", f"{each.n:,}"))
    return _aligned(lines) if len(lines) > 1 else ""


def differences_text(found: Comparison, a: str = "a", b: str = "b") -> str:
    """Metric, both figures, b − a with its 95 % interval, p, p after Holm's correction, briefings, and how many of them
    one alone has right. a, b: what the models are called."""
    head = (a, b, "difference", "95 % interval", "p", "p (Holm)", "n", f"only {a}", f"only {b}", "test")
    lines = [("metric", *head)]
    for name, each in found.metrics.items():
        values = map(_share, (each.a, each.b))
        if each.difference is None:
            rest = ("undefined", "", "", "")
        else:
            interval = f"[{each.low:+.4f}, {each.high:+.4f}]"
            rest = (f"{each.difference:+.4f}", interval, _p(each.p), _p(each.p_holm))
        discordant = tuple(map(str, each.discordant)) if each.discordant else ("", "")
        lines.append((name, *values, *rest, f"{each.n:,}", *discordant, each.test))
    text = f"{_aligned(lines)}\n\ncompared on {found.compared:,} of {found.rows:,} rows"
    if found.compared < found.rows:
        text += f"; no output: {a} alone {found.only_b:,}, {b} alone {found.only_a:,}, both {found.neither:,}"
    return text


def worst(records: Iterable[Record], reasons: int = 4) -> str:
    """Records with their first `reasons`."""
    lines = []
    for record in records:
        lines.append(f"{record.id}: {len(record.reasons)} fault{'s' * (len(record.reasons) != 1)}")
        lines += [f"  {reason[:160]}" for reason in record.reasons[:reasons]]
        if len(record.reasons) > reasons:
            lines.append(f"  … and {len(record.reasons) - reasons} more")
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _p(p: float | None) -> str:
    return "" if p is None else "<0.0001" if p < 1e-4 else f"{p:.4f}"


def _aligned(lines: list[tuple[str, ...]]) -> str:
    """Columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
