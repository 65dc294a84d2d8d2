"""A user's own records → a data set in the basic form.

One JSON object a line:

    {"nations": {"UKR": 0.74, "USA": 0.2},                                  risks, 0..1; codes of ISO 3166-1 alpha-3
     "signals": {"articles": 120, "tone": -3.1, "alerts": 4},               each may be missing
     "categories": {"political": {"risk": 40, "trend": "rising"}, ...},     all six; risks 0..100, trends in words
     "briefings": {"political": "...", ..., "summary": "...", "nsm": "..."}}  the eight texts

Figures are rounded as prompts print them: whole percents, whole category risks, one decimal of tone.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from elle.base import storage
from elle.base.errors import ElleError
from elle.briefings import dataset, writer
from elle.briefings.metrics import SIGNALS, TRENDS, Metrics, render
from elle.briefings.schema import CATEGORIES, Briefing

#: ISO 3166-1 alpha-3, and XKX, which is in general use.
COUNTRY_CODES = frozenset(
    """
    ABW AFG AGO AIA ALA ALB AND ARE ARG ARM ASM ATA ATF ATG AUS AUT AZE BDI BEL BEN BES BFA BGD BGR BHR BHS BIH BLM BLR
    BLZ BMU BOL BRA BRB BRN BTN BVT BWA CAF CAN CCK CHE CHL CHN CIV CMR COD COG COK COL COM CPV CRI CUB CUW CXR CYM CYP
    CZE DEU DJI DMA DNK DOM DZA ECU EGY ERI ESH ESP EST ETH FIN FJI FLK FRA FRO FSM GAB GBR GEO GGY GHA GIB GIN GLP GMB
    GNB GNQ GRC GRD GRL GTM GUF GUM GUY HKG HMD HND HRV HTI HUN IDN IMN IND IOT IRL IRN IRQ ISL ISR ITA JAM JEY JOR JPN
    KAZ KEN KGZ KHM KIR KNA KOR KWT LAO LBN LBR LBY LCA LIE LKA LSO LTU LUX LVA MAC MAF MAR MCO MDA MDG MDV MEX MHL MKD
    MLI MLT MMR MNE MNG MNP MOZ MRT MSR MTQ MUS MWI MYS MYT NAM NCL NER NFK NGA NIC NIU NLD NOR NPL NRU NZL OMN PAK PAN
    PCN PER PHL PLW PNG POL PRI PRK PRT PRY PSE PYF QAT REU ROU RUS RWA SAU SDN SEN SGP SGS SHN SJM SLB SLE SLV SMR SOM
    SPM SRB SSD STP SUR SVK SVN SWE SWZ SXM SYC SYR TCA TCD TGO THA TJK TKL TKM TLS TON TTO TUN TUR TUV TWN TZA UGA UKR
    UMI URY USA UZB VAT VCT VEN VGB VIR VNM VUT WLF WSM YEM ZAF ZMB ZWE XKX
    """.split()  # noqa: SIM905 (250 quoted strings read worse)
)

_ARROWS = {word: arrow for arrow, word in TRENDS.items()} | {arrow: arrow for arrow in TRENDS}


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
    places: dict[str, int] = {}
    new = [place for place in (folder, *folder.parents) if not storage.exists(place)]

    def lines() -> Iterator[tuple[str, bytes]]:
        count = 0
        for number, record in storage.numbered(source, unique=True):
            try:
                metrics, briefing = read_record(record)
            except ElleError as error:
                where = f"{source}:{number}" + (f", {error.where}" if error.where else "")
                raise ElleError(error.what, where=where, fix=error.fix) from error
            count += 1
            prompt = render(metrics)
            split = dataset.split_of(places.setdefault(prompt, len(places)))
            row = {
                "id": f"converted-{number}",
                "conversations": writer.turns(writer.SYSTEM_PROMPT, prompt, briefing.model_dump()),
            }
            yield split, storage.line(row).encode() + b"\n"
        if len(places) < 20:
            raise ElleError(
                f"{count} records, {len(places)} with different figures, cannot fill three splits",
                where=str(source),
                fix="give at least 20",
            )

    if not storage.exists(source) or not source.is_file():
        raise ElleError("file not found", where=str(source), fix="name a JSONL file of records")
    described = {"kind": "converted", "source": {"file": source.name, "sha256": storage.sha256(source)}, "version": 1}
    described |= {} if format == "jsonl" else {"format": format}
    try:
        return dataset.write_splits(folder, described, lines())
    except BaseException:
        with contextlib.suppress(OSError):
            for place in new:
                place.rmdir()
        raise


def read_record(record: Mapping[str, Any]) -> tuple[Metrics, Briefing]:
    """The figures and the texts of one record.

    Raises:
        ElleError: naming the entry that is missing, unknown, of the wrong type or out of range.
    """
    _keys(record, ("nations", "signals", "categories", "briefings"), "")
    nations = []
    for code, risk in record["nations"].items():
        if code not in COUNTRY_CODES:
            raise _bad(f"{code!r} is no country code", "nations", "use ISO 3166-1 alpha-3, such as UKR")
        nations.append((code, round(100 * _number(risk, f"nations.{code}", 0, 1))))
    nations.sort(key=lambda nation: (-nation[1], nation[0]))

    signals = record["signals"]
    _keys(signals, SIGNALS, "signals", all_needed=False)
    for name in ("articles", "alerts"):
        if not isinstance(signals.get(name, 0), int):
            raise _bad(f"{signals[name]!r} is no whole number", f"signals.{name}")
        _number(signals.get(name, 0), f"signals.{name}", 0, 10**9)
    tone = _number(signals["tone"], "signals.tone", -100, 100) if "tone" in signals else None

    _keys(record["categories"], CATEGORIES, "categories")
    categories = {}
    for name in CATEGORIES:
        entry, where = record["categories"][name], f"categories.{name}"
        _keys(entry, ("risk", "trend"), where)
        if not isinstance(entry["trend"], str) or entry["trend"] not in _ARROWS:
            raise _bad(f"{entry['trend']!r} is no trend", where, f"use {', '.join(TRENDS.values())}")
        categories[name] = (round(_number(entry["risk"], f"{where}.risk", 0, 100)), _ARROWS[entry["trend"]])
    try:
        briefing = Briefing.model_validate(record["briefings"])
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise _bad(fault["msg"], ".".join(map(str, ("briefings", *fault["loc"]))), "give the eight texts") from error
    for key, text in briefing.model_dump().items():
        if not text.isascii() and text.encode(errors="replace").decode() != text:
            raise _bad("a lone surrogate, which is no character", f"briefings.{key}", "correct the text")
    rounded = None if tone is None else round(Decimal(repr(tone)), 1) + 0  # no -0.0
    return Metrics(tuple(nations), signals.get("articles"), rounded, signals.get("alerts"), categories), briefing


def _keys(value: Any, known: tuple[str, ...], where: str, all_needed: bool = True) -> None:
    if not isinstance(value, dict):
        raise _bad(f"{type(value).__name__}, not an object", where)
    for key in known if all_needed else ():
        if key not in value:
            raise _bad(f"{key!r} is missing", where)
    for key in value:
        if key not in known:
            raise _bad(f"{key!r} is unknown", where, f"use {', '.join(known)}")
    if not where and not isinstance(value["nations"], dict):
        raise _bad(f"{type(value['nations']).__name__}, not an object of code: risk", "nations")


def _number(value: Any, where: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _bad(f"{value!r} is no number", where)
    if not low <= value <= high:
        raise _bad(f"{value!r} is not in {low}..{high}", where)
    return value


def _bad(what: str, where: str, fix: str = "see data/README.md for the form of a record") -> ElleError:
    return ElleError(what, where=where, fix=fix)
