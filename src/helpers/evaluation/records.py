"""The verdict on one output: every metric's counts, every fault with its reason."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from helpers.briefings.metrics import RISK_WORDS, Metrics, parse
from helpers.briefings.schema import CATEGORIES, Briefing, CicBriefing
from helpers.errors import ElleError
from helpers.evaluation.faithfulness import Checker, Finding, texts_of, triples
from helpers.evaluation.parsing import Parsed, parse_output, schema_valid

_WORDS = frozenset(word for _, words in RISK_WORDS for word in words)
_WORD = re.compile("crisis-level|[a-z]+")


@dataclass(frozen=True)
class Record:
    """One row's verdict. output: verbatim (lone surrogates as escapes), None where there is none; texts: the extracted
    object's, to which the findings' positions refer; counts: metric name → (numerator, denominator)."""

    id: str
    prompt: str
    output: str | None
    parsed: Parsed
    texts: dict[str, str]
    findings: tuple[Finding, ...]
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
    required = triples(checker.check(texts_of(wanted.value)))

    parsed = Parsed(False, False, "", None, "no output") if output is None else parse_output(output)
    model = CicBriefing if metrics.cic else Briefing
    fault = schema_valid(parsed.value, model) if parsed.value is not None else None
    texts = texts_of(parsed.value or {})
    findings = checker.check(texts)
    missing = required - triples(findings)
    words = _word_faults(texts, metrics) if parsed.lenient else dict.fromkeys(CATEGORIES, "")

    reasons = [f"not strictly JSON: {parsed.reason}"] if parsed.reason else []
    reasons += [f"schema: {fault}"] if fault else []
    reasons += [f"{f.number.key[:40]}: {f.number.text[:40]!r} is wrong: {f.why}" for f in findings if not f.ok]
    if parsed.lenient:  # without an object everything is missing, and the first reason says it
        reasons += [f"{key}: {metric} {value} is missing" for key, metric, value in sorted(missing)]
        reasons += [f"{key}: {why}" for key, why in words.items()]

    def right(derived: bool) -> tuple[int, int]:
        verdicts = [found.ok for found in findings if found.derived is derived]
        return sum(verdicts), len(verdicts)

    schema_lenient = parsed.lenient and fault is None
    schema = parsed.strict and schema_lenient
    counts = {
        "json_strict": (int(parsed.strict), 1),
        "json_lenient": (int(parsed.lenient), 1),
        "schema": (int(schema), 1),
        "schema_lenient": (int(schema_lenient), 1),
        "numeric_precision": right(derived=False),
        "numeric_recall": (len(required) - len(missing), len(required)),
        "derived_accuracy": right(derived=True),
        "risk_words": (len(CATEGORIES) - len(words), len(CATEGORIES)),
        "all_right": (int(schema and not missing and all(f.ok for f in findings)), 1),
    }
    return Record(name, prompt, _writable(output), parsed, texts, tuple(findings), tuple(reasons), counts)


def _word_faults(texts: Mapping[str, str], metrics: Metrics) -> dict[str, str]:
    """Category → what is wrong with its risk words, for the categories where something is."""
    faults = {}
    for name in CATEGORIES:
        value = metrics.categories[name][0]
        band = next(words for bound, words in RISK_WORDS if value < bound)
        used = _WORDS.intersection(_WORD.findall(texts.get(name, "").lower()))
        if not used:
            faults[name] = "no risk word"
        elif wrong := used.difference(band):
            faults[name] = f"risk word {', '.join(sorted(wrong))} for {value}"
    return faults


def _writable(text: str | None) -> str | None:
    return None if text is None else text.encode(errors="backslashreplace").decode()
