"""The audit of a data set: whether its targets are what an evaluation would call right, and what the set is made of.

`audit` writes its findings beside the set (`audit.json`) with a data card made from them (`README.md`). A set that
fails is marked so, with the reasons; `verdict` reads the mark back.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cic import analogues, criticality
from elle.base import paths, storage
from elle.base.errors import ElleError
from elle.briefings import dataset
from elle.briefings.metrics import RISK_WORDS, Metrics, parse
from elle.briefings.schema import CATEGORIES, Example
from elle.evaluation.verdict import Record, judge

AUDIT, CARD = "audit.json", "README.md"
#: What must be 1.0 over a set's targets.
PERFECT = (
    *("schema", "numeric_precision", "numeric_recall", "derived_accuracy", "risk_words", "arithmetic"),
    "epistemic_bound",
)
#: And in a simulated set: a user's own briefings may hold other words, and names.
PERFECT_SIMULATED = ("words", "phase", "fabrication")
#: Two examples are near-duplicates if the sets of three successive words of prompt and answer overlap so far (Jaccard).
NEAR = 0.8
#: Most near-duplicates, as a share of rows; least share of each phase, in a simulated set of this many rows or more.
MAX_NEAR, MIN_PHASE, PHASES_FROM = 0.01, 0.1, 2000
#: Most tokens an example, mean, by kind.
MAX_TOKENS = {"basic": 300, "cic": 900}
#: Rows, evenly spread, that are judged and compared (all rows of smaller sets), and on which tokens are counted.
MAX_ROWS, TOKEN_ROWS = 50_000, 2000


def audit(
    folder: Path | str,
    *,
    tokens: Callable[[str], int] | None = None,
    unit: str = "tokens",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Audit the set in `folder`, write the findings and the card, return the findings.

    Args:
        tokens: how many tokens a text takes; None: they are not counted. unit: what they are, in words.

    Raises:
        ElleError: there is no set, a file cannot be read, or a row is no conversation (file and line).
    """
    folder = Path(folder)
    manifest = dataset.load_manifest(folder)
    faults: list[str] = []
    sizes = {split: facts["rows"] for split, facts in manifest["splits"].items()}
    total, done = sum(sizes.values()), 0
    judged_by = (*PERFECT, *(PERFECT_SIMULATED if "seed" in manifest else ()))
    every = -(-total // MAX_ROWS)
    scores: Counter[str] = Counter()
    words: Counter[str] = Counter()
    ids: Counter[str] = Counter()
    prompts: dict[bytes, set[str]] = {}
    examples: Counter[bytes] = Counter()
    drawn: list[Metrics] = []
    texts: list[tuple[str, str]] = []
    lengths: list[int] = []
    for split, facts in manifest["splits"].items():
        path, number = folder / facts["file"], 0
        if not path.exists() or storage.sha256(path) != facts["sha256"]:
            faults.append(f"{facts['file']} is not the file that the manifest describes")
        for number, row in enumerate(dataset.rows_of(folder, split), 1):
            name, system, prompt, answer = Example.of(row)
            done += 1
            ids[name] += 1
            prompts.setdefault(_digest(prompt), set()).add(split)
            examples[_digest(f"{prompt}\n{answer}")] += 1
            if progress and (done % 200 == 0 or done == total):
                progress(done, total)
            if done % every:
                continue
            try:
                record = judge(name, prompt, answer, answer)
            except ElleError as error:
                faults.append(f"{facts['file']}:{number}: {error.what}")
                continue
            metrics = parse(prompt)
            _count(scores, record, judged_by)
            words.update(_risk_words(record, metrics))
            drawn.append(metrics)
            texts.append((split, f"{prompt}\n{answer}"))
            if tokens and done % max(1, total // TOKEN_ROWS) == 0:
                lengths.append(sum(tokens(text) for text in (system, prompt, answer)))
        if number != facts["rows"]:
            faults.append(f"{facts['file']} has {number} rows, the manifest says {facts['rows']}")
    if not drawn:
        raise ElleError("no row of this set can be read", where=str(folder), fix=faults[0] if faults else "")

    targets = {name: scores[name] / scores[f"{name} of"] if scores[f"{name} of"] else None for name in judged_by}
    found = {
        "kind": manifest.get("kind"),
        "rows": sizes,
        "rows_judged": len(drawn),
        "files": {split: facts["sha256"] for split, facts in manifest["splits"].items()},
        "targets": targets,
        "risk_words": {name: words[name] for _, names in RISK_WORDS for name in names},
        "nations": _tally(len(metrics.nations) for metrics in drawn),
        "cic": _cic([metrics for metrics in drawn if metrics.cic]),
        "duplicates": {
            "exact": sum(count - 1 for count in examples.values()),
            "ids": sum(count - 1 for count in ids.values()),
            "prompts_in_several_splits": sum(len(there) > 1 for there in prompts.values()),
        }
        | _near_duplicates(texts),
        "tokens": {"unit": unit} | _lengths(lengths) if lengths else None,
    }
    found["faults"] = faults = faults[:100] + _faults(found, targets, len(drawn))
    found["passed"] = not faults
    storage.write_json(folder / AUDIT, found)
    storage.write_text(folder / CARD, card(manifest, found))
    return found


def verdict(folder: Path | str) -> list[str] | None:
    """Why the set in `folder` failed its audit: [] where it passed, None where there is no audit of these files."""
    path = Path(folder) / AUDIT
    if not path.exists():
        return None
    found = storage.read_json(path)
    files = {split: facts["sha256"] for split, facts in dataset.load_manifest(folder)["splits"].items()}
    return found["faults"] if found["files"] == files else None


def refusals(folder: Path | str) -> list[str]:
    """Reasons not to train on the set in `folder`: its audit's faults; [] where it passed, or was not audited."""
    return [f"{paths.shown(folder)} fails its audit: {fault}" for fault in verdict(folder) or []]


def _count(scores: Counter[str], record: Record, names: Sequence[str]) -> None:
    for name in names:
        top, bottom = record.counts[name]
        if name == "numeric_recall":  # of a target against itself: every figure in it counts, right or wrong
            top, bottom = sum(found.ok for found in record.findings), len(record.findings)
        scores[name] += top
        scores[f"{name} of"] += bottom


def _risk_words(record: Record, metrics: Metrics) -> Iterable[str]:
    for name in CATEGORIES:
        value = metrics.categories[name][0]
        band = next(words for bound, words in RISK_WORDS if value < bound)
        text = record.texts.get(name, "").lower()
        yield from (word for word in band if word in text)


def _tally(values: Iterable[Any]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items(), key=lambda item: str(item[0]))}


def _spread(values: Sequence[float]) -> dict[str, float]:
    array = np.array(values)
    low, middle, high = np.quantile(array, (0.05, 0.5, 0.95)).tolist()
    spread = {"n": len(array), "mean": array.mean(), "sd": array.std(), "min": array.min()}
    spread |= {"5%": low, "50%": middle, "95%": high, "max": array.max()}
    return {name: round(float(value), 4) if name != "n" else value for name, value in spread.items()}


def _cic(drawn: Sequence[Metrics]) -> dict[str, Any] | None:
    """What the CIC figures are like, and how many prompts contradict themselves."""
    if not drawn:
        return None
    figures = [metrics.cic.values | metrics.cic.derived for metrics in drawn]
    names = sorted({name for values in figures for name in values})
    phased = [metrics.cic for metrics in drawn if metrics.cic.phase]
    wrong_phase = 0
    if phased:
        now_then = np.array([[float(c.values[name]) for name in _STATE] for c in phased]).T
        phases = criticality.classify_phase(now_then[0], now_then[1], previous=(now_then[2], now_then[3]))
        wrong_phase = sum(c.phase != phase for c, phase in zip(phased, phases, strict=True))
    matches = [analogues.nearest([risk / 100 for risk, _ in metrics.categories.values()])[0] for metrics in drawn]
    wrong_analogue = sum(
        metrics.cic.analogue != match.correlate.dated
        or abs(float(metrics.cic.values["distance"]) - match.distance) > 0.005 + 1e-9
        for metrics, match in zip(drawn, matches, strict=True)
    )
    return {
        "phases": _tally(metrics.cic.phase or "none" for metrics in drawn),
        "transition_rate": round(sum("transition" in values for values in figures) / len(drawn), 4),
        "capped_rate": round(sum(v["agreement"] > v["confidence"] for v in figures) / len(drawn), 4),
        "analogues": _tally(metrics.cic.analogue for metrics in drawn),
        "spread": {name: _spread([float(values[name]) for values in figures if name in values]) for name in names},
        "wrong_phase": wrong_phase,
        "wrong_analogue": wrong_analogue,
    }


_STATE = ("temperature", "order", "prior temperature", "prior order")


def _near_duplicates(texts: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Near-duplicates among (split, text), and how many pairs of them stand in different splits.

    By MinHash and locality-sensitive hashing (Broder 1997; datasketch), each candidate pair then compared exactly:
    linear in the rows, where comparing all pairs of 10,000 would take 50 million comparisons.
    """
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError as error:
        raise ElleError("datasketch is not installed", where="the audit", fix="run `make setup`") from error

    index = MinHashLSH(threshold=NEAR, num_perm=64)
    shingles = [_shingles(text) for _, text in texts]
    hashes = MinHash.bulk([[shingle.encode() for shingle in sorted(each)] for each in shingles], num_perm=64)
    near, across = set(), 0
    for place, (minhash, mine) in enumerate(zip(hashes, shingles, strict=True)):
        for other in index.query(minhash):
            if len(mine & shingles[other]) >= NEAR * len(mine | shingles[other]):
                near.add(place)
                across += texts[other][0] != texts[place][0]
        index.insert(place, minhash)
    return {"near": len(near), "near_share": round(len(near) / len(texts), 6), "near_pairs_across_splits": across}


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="backslashreplace"), digest_size=12).digest()


def _shingles(text: str) -> frozenset[str]:
    words = text.split()
    return frozenset(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))


def _lengths(lengths: Sequence[int]) -> dict[str, Any]:
    counts, edges = np.histogram(lengths, bins=20)
    return _spread(lengths) | {"histogram": {"edges": edges.round(1).tolist(), "counts": counts.tolist()}}


def _faults(found: Mapping[str, Any], targets: Mapping[str, float | None], rows: int) -> list[str]:
    faults = [
        f"{name} of the targets is {value:.6f}, not 1"
        for name, value in targets.items()
        if value is not None and value < 1
    ]
    duplicates, cic, tokens = found["duplicates"], found["cic"], found["tokens"]
    if duplicates["near_share"] >= MAX_NEAR:
        faults.append(f"{duplicates['near']} near-duplicates: {duplicates['near_share']:.2%} of the rows")
    if leaks := duplicates["prompts_in_several_splits"] + duplicates["near_pairs_across_splits"]:
        faults.append(f"{leaks} prompts or near-duplicates stand in more than one split")
    if duplicates["ids"]:
        faults.append(f"{duplicates['ids']} ids occur more than once")
    if tokens and tokens["mean"] > MAX_TOKENS.get(found["kind"], np.inf):
        faults.append(f"{tokens['mean']:.0f} tokens an example, more than {MAX_TOKENS[found['kind']]}")
    if cic:
        spread = cic["spread"].items()
        faults += [f"{name} is constant" for name, figure in spread if figure["sd"] == 0 and figure["n"] > 1]
        if wrong := cic["wrong_phase"] + cic["wrong_analogue"]:
            faults.append(f"{wrong} prompts name a phase or an analogue that their figures do not give")
        if found["kind"] == "cic" and rows >= PHASES_FROM:
            shares = {phase: cic["phases"].get(phase, 0) / rows for phase in criticality.PHASES}
            faults += [f"{phase} is {share:.1%} of the rows" for phase, share in shares.items() if share < MIN_PHASE]
    return faults


def audit_summary(found: Mapping[str, Any]) -> dict[str, str]:
    """The findings in a line each: what was asked → what was found."""
    lines = {f"{split} rows": f"{count:,}" for split, count in found["rows"].items()}
    lines |= {f"{name} of the targets": _shown(value) for name, value in found["targets"].items()}
    duplicates = found["duplicates"]
    lines["exact duplicates"] = str(duplicates["exact"])
    lines[f"near-duplicates (Jaccard of word triples ≥ {NEAR})"] = str(duplicates["near"])
    lines["prompts in more than one split"] = str(duplicates["prompts_in_several_splits"])
    if tokens := found["tokens"]:
        spread = f"mean {tokens['mean']:.0f}, {tokens['min']:.0f} to {tokens['max']:.0f}"
        lines[f"{tokens['unit']} an example"] = spread
    if cic := found["cic"]:
        judged = found["rows_judged"]
        lines |= {f"phase {phase}": f"{count / judged:.1%}" for phase, count in cic["phases"].items()}
        lines["with a transition"] = f"{cic['transition_rate']:.1%}"
    return lines


def card(manifest: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The data card in markdown, for people and for a dataset hub."""
    size = sum(found["rows"].values())
    kind = "CIC" if found["cic"] else "basic"
    lines = [
        "---",
        "license: apache-2.0",
        "language: [en]",
        "task_categories: [text-generation]",
        "configs:",
        "- config_name: default",
        "  data_files:",
        *(f"  - {{split: {split}, path: {facts['file']}}}" for split, facts in manifest["splits"].items()),
        "---",
        f"# Elle's briefings: {size:,} examples, {kind}",
        "",
        f"**{'Passed its audit.' if found['passed'] else 'FAILED its audit: do not train on it.'}**",
        *(f"- {fault}" for fault in found["faults"]),
        "",
        "System, human (pipeline metrics) and gpt (one JSON object) turns, one example a row. "
        + (
            f"Simulated, seed {manifest['seed']}: the figures say nothing about the countries whose names they carry."
            if "seed" in manifest
            else "Converted from a user's own records."
        ),
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in audit_summary(found).items()),
    ]
    if cic := found["cic"]:
        lines += ["", "| figure | mean | sd | 5 % | 95 % |", "|---|---|---|---|---|"]
        lines += [
            f"| {name} | {s['mean']:.3f} | {s['sd']:.3f} | {s['5%']:.2f} | {s['95%']:.2f} |"
            for name, s in cic["spread"].items()
        ]
    return "\n".join(lines) + "\n"


def _shown(value: float | None) -> str:
    return "no such figures" if value is None else f"{value:.4f}"
