"""The verdict on one output: every metric's counts, every fault with its reason."""

from dataclasses import dataclass
from typing import Any

from elle.base.errors import ElleError
from elle.briefings.metrics import parse
from elle.briefings.schema import CATEGORIES, Briefing, CicBriefing
from elle.evaluation import arithmetic, bounds, fabrication, words
from elle.evaluation.faithfulness import CheckedNumber, Checker, texts_of, triples
from elle.evaluation.parsing import Parsed, parse_output, schema_valid


@dataclass(frozen=True)
class Record:
    """One row's verdict. output: verbatim (lone surrogates as escapes), None where there is none; texts: the extracted
    object's, to which the findings' positions refer; counts: metric name → (numerator, denominator)."""

    id: str
    prompt: str
    output: str | None
    parsed: Parsed
    texts: dict[str, str]
    findings: tuple[CheckedNumber, ...]
    reasons: tuple[str, ...]
    counts: dict[str, tuple[int, int]]

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "prompt": self.prompt,
            "output": self.output,
            "how": self.parsed.how,
            "texts": {key: _writable(text) for key, text in self.texts.items()},
            "reasons": list(self.reasons),
            "findings": [
                {
                    **{name: getattr(found.number, name) for name in ("key", "start", "end", "text", "metric")},
                    "expected": None if found.expected is None else str(found.expected),
                    "derived": found.derived,
                    "ok": found.ok,
                    "why": found.why,
                }
                for found in self.findings
            ],
            "scores": {name: top / bottom if bottom else None for name, (top, bottom) in self.counts.items()},
        }


def judge(name: str, prompt: str, reference: str, output: str | None) -> Record:
    """The verdict on `output` (None: there is none), given the row's prompt and its reference answer.

    Raises:
        ElleError: the prompt or the reference is not in the project's format.
    """
    try:
        metrics = parse(prompt)
    except ElleError as error:
        raise ElleError(error.what, where=f"row id {name!r}, {error.where}", fix=error.fix) from error
    wanted = parse_output(reference)
    if wanted.value is None or not wanted.strict:
        raise ElleError(
            f"the reference answer is not one JSON object: {wanted.reason}",
            where=f"row id {name!r}, gpt turn",
            fix="regenerate or correct the row",
        )
    checker = Checker(metrics)
    # A reference's own wrong numbers are nothing that an answer should repeat: `triples` holds the right ones.
    required = checker.triples(texts_of(wanted.value))
    derived = sum(metric in checker.derived for _, metric, _ in required)

    parsed = Parsed(False, False, "", None, "no output") if output is None else parse_output(output)
    model = CicBriefing if metrics.cic else Briefing
    fault = schema_valid(parsed.value, model) if parsed.value is not None else None
    reasons = [f"not strictly JSON: {parsed.reason}"] if parsed.reason else []
    reasons += [f"schema: {fault}"] if fault else []
    schema = int(parsed.strict and fault is None)
    counts = {
        "json_strict": (int(parsed.strict), 1),
        "json_lenient": (int(parsed.lenient), 1),
        "schema": (schema, 1),
        "schema_lenient": (int(parsed.lenient and fault is None), 1),
    }
    texts = texts_of(parsed.value or {})
    findings = checker.check(texts)
    said_of = words.count(metrics)
    if parsed.value is None:  # everything is missing, and the first reason says it
        counts |= dict.fromkeys(("numeric_precision", "derived_accuracy", "arithmetic", "epistemic_bound"), (0, 0))
        counts |= {
            "numeric_recall": (0, len(required) - derived),
            "derived_recall": (0, derived),
            "risk_words": (0, len(CATEGORIES)),
            "words": (0, said_of),
            "phase": (0, int(metrics.cic is not None)),
            "fabrication": (0, 0),
            "fabrication_lenient": (0, 0),
            "all_right": (0, 1),
        }
        return Record(name, prompt, _writable(output), parsed, texts, (), tuple(reasons), counts)

    right, total, derived_right, derived_total = 0, 0, 0, 0
    for found in findings:
        if found.derived:
            derived_total += 1
            derived_right += found.ok
        else:
            total += 1
            right += found.ok
        if not found.ok:
            number = found.number
            reasons.append(f"{number.key[:40]}: {number.text[:40]!r} is wrong: {found.why}")
    missing = required - triples(findings)
    lost = sum(metric in checker.derived for _, metric, _ in missing)
    reasons += [f"{key}: {metric} {value} is missing" for key, metric, value in sorted(missing)]
    read = words.read_words(texts)
    risk, said = words.faults(read, metrics)
    reasons += [f"{key}: {why}" for key, why in (*risk.items(), *said.items())]
    phase = words.phase_fault(read, metrics) if metrics.cic else ""
    sums, sums_of = arithmetic.faults(findings)
    stated = bounds.stated(read)
    bold = bounds.above(stated)
    names, surely = fabrication.faults(read, metrics, findings)
    reasons += [f"phase: {phase}"] if phase else []
    reasons += [f"arithmetic: {why}" for why in sums]
    reasons += bold
    reasons += names
    held = schema and not (missing or risk or said or phase or sums or bold or surely)
    counts |= {
        "numeric_precision": (right, total),
        "numeric_recall": (len(required) - derived - len(missing) + lost, len(required) - derived),
        "derived_accuracy": (derived_right, derived_total),
        "derived_recall": (derived - lost, derived),
        "arithmetic": (sums_of - len(sums), sums_of),
        "risk_words": (len(CATEGORIES) - len(risk), len(CATEGORIES)),
        "words": (said_of - len(said), said_of),
        "phase": (int(not phase), 1) if metrics.cic else (0, 0),
        "epistemic_bound": (int(not bold), 1) if stated else (0, 0),
        "fabrication": (int(not names), 1),
        "fabrication_lenient": (int(not surely), 1),
        "all_right": (int(held and right == total and derived_right == derived_total), 1),
    }
    return Record(name, prompt, _writable(output), parsed, texts, tuple(findings), tuple(reasons), counts)


def _writable(text: str | None) -> str | None:
    return None if text is None else text.encode(errors="backslashreplace").decode()
