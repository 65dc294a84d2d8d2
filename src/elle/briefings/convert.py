"""A user's own records → a data set in the basic form.

One JSON object per line:

    {"nations": {"UKR": 0.74, "USA": 0.2},                                  risks, 0..1; codes of ISO 3166-1 alpha-3
     "signals": {"articles": 120, "tone": -3.1, "alerts": 4},               each may be missing
     "categories": {"political": {"risk": 40, "trend": "rising"}, ...},     all six; risks 0..100, trends in words
     "briefings": {"political": "...", ..., "summary": "...", "nsm": "..."}}  the eight texts

Figures are rounded as prompts print them: whole percents, whole category risks, one decimal of tone.
"""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pycountry
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator

from elle.base import storage
from elle.base.errors import ElleError
from elle.briefings import dataset, writer
from elle.briefings.metrics import TRENDS, Metrics, render
from elle.briefings.schema import CATEGORIES, Briefing, Example

_CODES = {country.alpha_3 for country in pycountry.countries} | {"XKX"}  # Kosovo's, which is in general use
_ARROWS = {word: arrow for arrow, word in TRENDS.items()} | {arrow: arrow for arrow in TRENDS}


def _country(code: str) -> str:
    if code not in _CODES:
        raise ValueError("not a country code of ISO 3166-1 alpha-3, such as UKR")
    return code


def _arrow(trend: str) -> str:
    if trend not in _ARROWS:
        raise ValueError(f"not a trend: use {', '.join(TRENDS.values())}")
    return _ARROWS[trend]


Count = Annotated[int, Field(ge=0, le=10**9)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Signals(_Part):
    articles: Count | None = None
    tone: Annotated[float, Field(ge=-100, le=100)] | None = None
    alerts: Count | None = None


class _Category(_Part):
    risk: Annotated[float, Field(ge=0, le=100)]
    trend: Annotated[str, AfterValidator(_arrow)]


class PipelineRecord(_Part):
    """One record, as the module's docstring shows it."""

    nations: dict[Annotated[str, AfterValidator(_country)], Annotated[float, Field(ge=0, le=1)]]
    signals: _Signals
    categories: create_model("_Categories", __base__=_Part, **dict.fromkeys(CATEGORIES, _Category))
    briefings: Briefing

    @field_validator("briefings")
    @classmethod
    def _can_be_written(cls, briefing: Briefing) -> Briefing:
        for key, text in briefing:
            if text.encode(errors="replace").decode() != text:
                raise ValueError(f"a lone surrogate, which is not a character, in {key}")
        return briefing

    def metrics(self) -> Metrics:
        nations = sorted(
            ((code, round(100 * risk)) for code, risk in self.nations.items()), key=lambda one: (-one[1], one[0])
        )
        tone = self.signals.tone
        rounded = None if tone is None else round(Decimal(repr(tone)), 1) + 0  # no -0.0
        categories = {name: (round(category.risk), category.trend) for name, category in self.categories}
        return Metrics(tuple(nations), self.signals.articles, rounded, self.signals.alerts, categories)


def convert(source: Path | str, folder: Path | str, *, format: str = "jsonl") -> dict:
    """Convert the records of `source` to a data set in `folder`; return its manifest. Records with the same figures
    stand in the same split.

    Raises:
        ElleError: with file and line, at the first record that is not of the form above; fewer than 20 records with
            different figures; a folder that holds a set. Nothing is written then.
    """
    source, folder = Path(source), Path(folder)
    if storage.exists(folder / dataset.MANIFEST):
        raise ElleError("this folder already holds a data set", where=str(folder), fix="choose another folder")
    if not storage.exists(source) or not source.is_file():
        raise ElleError("file not found", where=str(source), fix="name a JSONL file of records")

    def examples() -> Iterator[tuple[str, Example]]:
        count, places = 0, {}
        for number, row in storage.numbered(source, unique=True):
            record = _read_record(row, f"{source}:{number}")
            count += 1
            prompt, answer = render(record.metrics()), storage.line(record.briefings.model_dump())
            split = dataset.split_of(places.setdefault(prompt, len(places)))
            yield split, Example(f"converted-{number}", writer.SYSTEM_PROMPT, prompt, answer)
        if len(places) < 20:
            raise ElleError(
                f"{count} records, {len(places)} with different figures, cannot fill three splits",
                where=str(source),
                fix="give at least 20",
            )

    described = {"kind": "converted", "source": {"file": source.name, "sha256": storage.sha256(source)}, "version": 1}
    described |= {} if format == "jsonl" else {"format": format}
    return dataset.write_splits(folder, described, examples())


def _read_record(row: dict[str, Any], where: str) -> PipelineRecord:
    try:
        return PipelineRecord.model_validate(row)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        entry = ".".join(str(part) for part in fault["loc"] if part != "[key]")
        given = "" if fault["type"] == "missing" else f": {fault['input']!r:.60}"
        raise ElleError(
            f"{fault['msg'].removeprefix('Value error, ')}{given}",
            where=f"{where}, {entry}",
            fix="see data/README.md for the form of a record",
        ) from error
