"""The verdict on one output: every metric's counts, every fault with its reason."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from elle.base.errors import ElleError
from elle.base.secrets import redacted
from elle.briefings.metrics import parse
from elle.briefings.schema import CATEGORIES, Briefing, CicBriefing
from elle.evaluation.fabrication import above_cap, fabrications
from elle.evaluation.parsing import Parsed, parse_output, schema_valid, texts_of
from elle.evaluation.reading import DERIVED_FIGURES, CheckedNumber, Unread
from elle.evaluation.statements import PHASE, Checked, Checker, arithmetic_faults

_NONE: frozenset[str] = frozenset()
#: Metric name → (numerator, denominator); (0, 0): it judges nothing here.
Counts = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Record:
    """One row's verdict. output: verbatim (lone surrogates as escapes, a key of this environment by its name), None
    where there is none; texts: the extracted object's, to which positions refer; counts: of each metric."""

    id: str
    prompt: str
    output: str | None
    parsed: Parsed
    texts: dict[str, str]
    unread: tuple[Unread, ...]
    reasons: tuple[str, ...]
    counts: Counts

    @cached_property
    def findings(self) -> tuple[CheckedNumber, ...]:
        """The verdict on every number of `texts`, in order."""
        return tuple(Checker(parse(self.prompt)).numbers(self.texts))

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
            "unread": [{"key": part.key, "start": part.start, "end": part.end} for part in self.unread],
            "scores": {name: top / bottom if bottom else None for name, (top, bottom) in self.counts.items()},
        }


def judge(name: str, prompt: str, reference: str, output: str | None) -> Record:
    """The verdict on `output` (None: there is none), given the row's prompt and its reference answer.

    Raises:
        ElleError: the prompt or the reference is not in the project's format.
    """
    try:
        checker, required = _asked(prompt, reference)
    except ElleError as error:
        raise ElleError(error.what, where=f"row id {name!r}, {error.where}", fix=error.fix) from error
    metrics = checker.metrics
    # Before it is read: all that is kept and shown of it follows, and positions are those of the text without the key.
    output = None if output is None else redacted(output)
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
    checked = checker.check(texts)
    missing = [
        (key, metric)
        for key, metrics in required.items()
        if (gone := metrics - checked.cited.get(key, _NONE))
        for metric in gone
    ]
    counts |= _number_counts(checker, required, missing, checked)
    bold, stated = above_cap(checked)
    invented = fabrications(checked, metrics)
    sums, sums_checked = arithmetic_faults(checker, checked)
    there = int(parsed.value is not None)
    counts |= {
        "arithmetic": (sums_checked - len(sums), sums_checked),
        "epistemic_bound": (int(not bold), 1) if stated else (0, 0),
        **_word_counts(checker, checked),
        "fabrication": (there - bool(invented), there),
    }
    if there:  # else everything is missing, and the first reason says it
        reasons += [f"{each.key[:40]}: {each.text[:40]!r} is wrong: {each.why}" for each in checked.wrong]
        reasons += [f"{each.key[:40]}: not read: {each.text[:80]!r}" for each in checked.unread]
        reasons += [f"{key}: {metric} {checker.true[metric]} is missing" for key, metric in sorted(missing)]
        reasons += [*checked.faults, *(f"arithmetic: {why}" for why in sums), *bold, *invented]
    held = all(top == bottom for metric, (top, bottom) in counts.items())
    counts["all_right"] = (int(held), 1)
    return Record(
        name,
        prompt,
        _writable(output),
        parsed,
        texts,
        tuple(checked.unread),
        tuple(reasons),
        counts,
    )


@lru_cache(1 << 11)  # many models answer the same rows
def _asked(prompt: str, reference: str) -> tuple[Checker, dict[str, Set[str]]]:
    """What checks an answer to `prompt`, and key → the metrics that it must cite: those that the reference has right
    (its own wrong numbers are nothing that an answer should repeat)."""
    checker, wanted = Checker(parse(prompt)), parse_output(reference)
    if wanted.value is None or not wanted.strict:
        what = f"the reference answer is not one JSON object: {wanted.reason}"
        raise ElleError(what, where="gpt turn", fix="regenerate or correct the row")
    return checker, checker.cited(texts_of(wanted.value))


def _number_counts(
    checker: Checker, required: Mapping[str, Set[str]], missing: Sequence[tuple[str, str]], checked: Checked
) -> Counts:
    """required: key → metrics of the figures that an answer must have; missing: (key, metric) of those it has not."""
    derived = [number for number in checked.wrong if number.derived]
    printed = checked.total - checked.derived
    read = checked.total + checked.sentences - checked.unread_sentences
    every = sum(map(len, required.values()))
    wanted = sum(len(DERIVED_FIGURES & metrics) for metrics in required.values())
    lost = sum(metric in checker.derived for _, metric in missing)
    return {
        "read": (read, checked.total + checked.loose + checked.sentences),
        "numeric_precision": (printed - len(checked.wrong) + len(derived), printed),
        "numeric_recall": (every - wanted - len(missing) + lost, every - wanted),
        "derived_accuracy": (checked.derived - len(derived), checked.derived),
        "derived_recall": (wanted - lost, wanted),
    }


def _word_counts(checker: Checker, checked: Checked) -> Counts:
    """The counts of what words say: of what must be said, and of what else is."""
    required, right = checker.required, checked.right
    bands, phase = sum(thing[0] == "band" for thing in right), PHASE in required
    words = len(right) - bands - (PHASE in right), len(required) - len(CATEGORIES) - phase
    return {
        "phase": (int(PHASE in right), 1) if phase else (0, 0),
        "risk_words": (bands, len(CATEGORIES)),
        "words": (words[0] + checked.more_right, words[1] + checked.more),
    }


def _writable(text: str | None) -> str | None:
    return None if text is None else text.encode(errors="backslashreplace").decode()
