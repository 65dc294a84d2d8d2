"""From a model's raw output to a JSON object, or the reason why there is none, and to the texts in it. Made for hostile
text: it never raises, and its time is linear in the length of the output."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from elle.briefings.schema import Briefing

#: An output longer than this (bytes of UTF-8) is refused unparsed.
MAX_BYTES = 1_000_000
#: Objects and arrays within one another, the outermost included. A briefing has 1.
MAX_DEPTH = 32

_SPACE = " \t\n\r"  # the white space of JSON; anything else around the object is text
_START = re.compile(r'\{[ \t\n\r]*+(?=["}])')
# Possessive, with an optional closing quote: it always matches, so an unterminated string is read once only.
_SCAN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[{}\[\]]', re.DOTALL)
_FENCE = re.compile(r"```[\w-]*[ \t\n\r]*\Z")


@dataclass(frozen=True)
class Parsed:
    """What a reader gets from one output.

    how: "as is", "from a code fence", "from surrounding prose"; "" where there is no object.
    value: the object, None where there is none.
    reason: why it is not strict; "" where it is.
    """

    how: str = ""
    value: dict[str, Any] | None = None
    reason: str = ""

    @property
    def strict(self) -> bool:
        """The whole output, white space around it aside, is one JSON object. Refused, beyond what is not JSON:
        duplicate keys, NaN and Infinity (and numbers that overflow to them), lone surrogates, more than `MAX_DEPTH`
        levels, more than `MAX_BYTES`."""
        return not self.reason

    @property
    def lenient(self) -> bool:
        """One such object stands somewhere in the output. Text around it is forgiven; a fault inside it is not, and no
        part of a malformed or cut-off object is taken for the object. Of several objects the longest is taken."""
        return self.value is not None


def parse_output(text: str) -> Parsed:
    """Read one output, strictly and leniently."""
    if len(text) > MAX_BYTES or (4 * len(text) > MAX_BYTES and len(text.encode(errors="replace")) > MAX_BYTES):
        return Parsed(reason=f"too long: over {MAX_BYTES:,} bytes, not parsed")
    body = text.strip(_SPACE)
    if not body:
        return Parsed(reason="empty output")
    try:
        value = _read(body)
        if isinstance(value, dict):
            return Parsed("as is", value)
        reason = f"a JSON {type(value).__name__}, not an object"
    except _RefusedError as error:
        reason = str(error) if body[0] == "{" else "no JSON object"

    best, faults = None, []
    for start, end in _objects(body):
        if end is None:
            faults.append("cut off: the object does not end")
        elif best is None or end - start > best[1] - best[0]:
            try:
                value = _read(body[start:end])
            except _RefusedError as error:
                faults.append(str(error))
            else:
                best = (start, end, value)
    if best is None:
        return Parsed(reason=faults[0] if faults else reason)
    start, end, value = best
    if _FENCE.search(body, max(0, start - 100), start):
        return Parsed("from a code fence", value, "the object is in a code fence")
    sides = [side for side, there in (("before", start > 0), ("after", end < len(body))) if there]
    return Parsed("from surrounding prose", value, f"text {' and '.join(sides)} the object")


def schema_valid(value: Any, model: type[BaseModel] = Briefing) -> str | None:
    """None where `value` is what `model` describes (every key, no other, the right types), else what is wrong."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        by_kind: dict[str, list[str]] = {}
        for fault in error.errors(include_url=False, include_input=False, include_context=False):
            kind = {"missing": "missing", "extra_forbidden": "extra"}.get(fault["type"], "wrong type")
            by_kind.setdefault(kind, []).append(".".join(map(str, fault["loc"]))[:40] or "the whole")
        return "; ".join(
            f"{kind}: {', '.join(names[:8])}{' …' if len(names) > 8 else ''}" for kind, names in by_kind.items()
        )
    return None


def texts_of(value: Mapping[str, Any]) -> dict[str, str]:
    """Key → text. What is not a text (a fault of its own) is read as its JSON, so that no number escapes."""
    return {key: text if isinstance(text, str) else json.dumps(text, ensure_ascii=False) for key, text in value.items()}


class _RefusedError(ValueError):
    """This text is not JSON under the strict reading; the message says why."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise _RefusedError(f"duplicate key {twice[:40]!r}")
    return result


def _constant(name: str) -> float:
    raise _RefusedError(f"{name} is not JSON")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise _RefusedError("a number too large")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant, parse_float=_finite)


def _read(text: str) -> Any:
    """The JSON value that `text` is, under the strict reading."""
    try:
        value, end = _DECODER.raw_decode(text)
    except _RefusedError:
        raise
    except json.JSONDecodeError as error:
        raise _RefusedError(f"not JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise _RefusedError(f"nested deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:  # an integer of more digits than Python converts
        raise _RefusedError("a number too large") from error
    if end < len(text):
        raise _RefusedError("text after the object")
    if _too_deep(value):
        raise _RefusedError(f"nested deeper than {MAX_DEPTH} levels")
    try:
        text.encode()
        if "\\u" in text:  # an escape may be one, too; a proper pair of escapes is fine
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _RefusedError("a lone surrogate") from error
    return value


def _too_deep(value: Any) -> bool:
    """Level by level, so that no depth can exhaust the stack."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [item for item in level if isinstance(item, dict | list)]
        if not level:
            return False
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return True


def _objects(text: str) -> Iterator[tuple[int, int | None]]:
    """The (start, end) of each outermost {…} that opens like an object, brackets in strings aside; end None: it does
    not close. The spans do not overlap, which is what keeps the reading of all of them linear."""
    position = 0
    while opening := _START.search(text, position):
        depth = 0
        for token in _SCAN.finditer(text, opening.start()):
            mark = token[0][0]
            depth += (mark in "{[") - (mark in "}]")
            if depth == 0:
                break
        else:
            yield opening.start(), None
            return
        position = token.end()
        yield opening.start(), position
