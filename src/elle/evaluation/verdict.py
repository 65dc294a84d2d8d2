"""The verdict on one output: every metric's counts, every fault with its reason."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from elle.base.errors import ElleError
from elle.briefings.metrics import Metrics, parse
from elle.briefings.schema import CATEGORIES, Briefing, CicBriefing
from elle.evaluation.fabrication import fabrications
from elle.evaluation.numbers import CheckedNumber, Checker, above_cap, arithmetic_faults, stated_confidences, triples
from elle.evaluation.parsing import Parsed, parse_output, read_words, schema_valid, texts_of
from elle.evaluation.words import phase_fault, word_faults

#: Metric name → (numerator, denominator); (0, 0): it judges nothing here.
Counts = dict[str, tuple[int, int]]
#: Metrics that a briefing may fall short of and be all right.
_FORGIVEN = frozenset({"fabrication"})


@dataclass(frozen=True)
class Record:
    """One row's verdict. output: verbatim (lone surrogates as escapes), None where there is none; texts: the extracted
    object's, to which the findings' positions refer; counts: of each metric."""

    id: str
    prompt: str
    output: str | None
    parsed: Parsed
    texts: dict[str, str]
    findings: tuple[CheckedNumber, ...]
    reasons: tuple[str, ...]
    counts: Counts

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
                    **{name: getattr(number, name) for name in ("key", "start", "end", "text", "metric")},
                    "expected": None if number.expected is None else str(number.expected),
                    **{name: getattr(number, name) for name in ("derived", "ok", "why")},
                }
                for number in self.findings
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
        what = f"the reference answer is not one JSON object: {wanted.reason}"
        fix = "regenerate or correct the row"
        raise ElleError(what, where=f"row id {name!r}, gpt turn", fix=fix)
    checker = Checker(metrics)
    # A reference's own wrong numbers are nothing that an answer should repeat: `triples` holds the right ones.
    required = triples(checker.check(texts_of(wanted.value)))
    parsed = Parsed(reason="no output") if output is None else parse_output(output)
    model = CicBriefing if metrics.cic else Briefing
    fault = schema_valid(parsed.value, model) if parsed.value is not None else None
    counts: Counts = {
        "json_strict": (int(parsed.strict), 1),
        "json_lenient": (int(parsed.lenient), 1),
        "schema": (int(parsed.strict and fault is None), 1),
        "schema_lenient": (int(parsed.lenient and fault is None), 1),
    }
    reasons = [f"not strictly JSON: {parsed.reason}"] if parsed.reason else []
    reasons += [f"schema: {fault}"] if fault else []
    texts = texts_of(parsed.value or {})
    findings = checker.check(texts)
    missing = required - triples(findings)
    counts |= _number_counts(checker, required, missing, findings)
    word_counts, faults = _word_counts(metrics, texts, findings, int(parsed.value is not None))
    counts |= word_counts
    if parsed.value is not None:  # else everything is missing, and the first reason says it
        reasons += [f"{each.key[:40]}: {each.text[:40]!r} is wrong: {each.why}" for each in findings if not each.ok]
        reasons += [f"{key}: {metric} {value} is missing" for key, metric, value in sorted(missing)]
        reasons += faults
    held = all(top == bottom for metric, (top, bottom) in counts.items() if metric not in _FORGIVEN)
    counts["all_right"] = (int(held), 1)
    return Record(name, prompt, _writable(output), parsed, texts, tuple(findings), tuple(reasons), counts)


def _number_counts(checker: Checker, required: Set, missing: Set, findings: Sequence[CheckedNumber]) -> Counts:
    """required, missing: (key, metric, value) of the figures that an answer must have, and has not."""
    printed = [number.ok for number in findings if not number.derived]
    derived = [number.ok for number in findings if number.derived]
    wanted = sum(metric in checker.derived for _, metric, _ in required)
    lost = sum(metric in checker.derived for _, metric, _ in missing)
    return {
        "numeric_precision": (sum(printed), len(printed)),
        "numeric_recall": (len(required) - wanted - len(missing) + lost, len(required) - wanted),
        "derived_accuracy": (sum(derived), len(derived)),
        "derived_recall": (wanted - lost, wanted),
    }


def _word_counts(
    metrics: Metrics, texts: Mapping[str, str], findings: Sequence[CheckedNumber], there: int
) -> tuple[Counts, list[str]]:
    """The counts of what `texts` say, and their faults; there: 1 where there is an object, else 0."""
    read = read_words(texts)
    sums, checked = arithmetic_faults(findings)
    stated = stated_confidences(read)
    bold = above_cap(stated)
    phase = phase_fault(read, metrics) if metrics.cic else ""
    risk, unsaid, things = word_faults(read, metrics)
    names, surely = fabrications(read, metrics, findings)
    counts = {
        "arithmetic": (checked - len(sums), checked),
        "epistemic_bound": (int(not bold), 1) if stated else (0, 0),
        "phase": (int(not phase), 1) if metrics.cic else (0, 0),
        "risk_words": (len(CATEGORIES) - len(risk), len(CATEGORIES)),
        "words": (things - len(unsaid) if there else 0, things),
        "fabrication": (there - bool(names), there),
        "fabrication_lenient": (there - bool(surely), there),
    }
    reasons = [f"{key}: {why}" for key, why in (*risk.items(), *unsaid.items())]
    reasons += [f"phase: {phase}"] if phase else []
    return counts, [*reasons, *(f"arithmetic: {why}" for why in sums), *bold, *names]


def _writable(text: str | None) -> str | None:
    return None if text is None else text.encode(errors="backslashreplace").decode()
