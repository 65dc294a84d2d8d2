"""The audit of a data set: whether its targets are what an evaluation would call right, and what the set is made of.

`audit` writes its findings beside the set (`audit.json`) with a data card made from them (`README.md`). A set that
fails is marked so, with the reasons; `verdict` reads the mark back.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cic import analogues, criticality
from elle.base import paths, storage
from elle.base.errors import ElleError
from elle.briefings import dataset
from elle.briefings.metrics import RISK_WORDS, Metrics, parse, risk_band
from elle.briefings.schema import Example
from elle.evaluation.verdict import judge

AUDIT, CARD = "audit.json", "README.md"
#: What must be 1.0 over a set's targets.
PERFECT = (
    *("schema", "numeric_precision", "numeric_recall", "derived_accuracy", "risk_words", "arithmetic"),
    "epistemic_bound",
)
#: And in a simulated set: a user's own briefings may hold other words, and names.
PERFECT_SIMULATED = ("read", "words", "phase", "fabrication")
#: Two examples are near-duplicates if the sets of three successive words of prompt and answer overlap so far (Jaccard).
NEAR = 0.8
#: Most near-duplicates, as a share of rows; least share of each phase, in a simulated set of this many rows or more.
MAX_NEAR, MIN_PHASE, PHASES_FROM = 0.01, 0.1, 2000
#: Most tokens an example, mean, by kind.
MAX_TOKENS = {"basic": 300, "cic": 900}
#: Rows, evenly spread, that are judged and compared (all rows of smaller sets), and on which tokens are counted.
MAX_ROWS, TOKEN_ROWS = 50_000, 2000

#: What is compared of each row: its id, its split, its prompt and its prompt with its answer (both as digests).
_Seen = tuple[str, str, bytes, bytes]


class _Judged(NamedTuple):
    """A row that was judged. text: prompt and answer; counts: of each metric that must be 1; words: its risk words."""

    split: str
    text: str
    metrics: Metrics
    counts: list[tuple[int, int]]
    words: list[str]


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
        ElleError: there is no set, a file cannot be read, or a row is not a conversation (file and line).
    """
    folder = Path(folder)
    manifest = dataset.load_manifest(folder)
    total = sum(facts["rows"] for facts in manifest["splits"].values())
    judge_every, count_every = -(-total // MAX_ROWS), max(1, total // TOKEN_ROWS)
    targets = (*PERFECT, *PERFECT_SIMULATED) if "seed" in manifest else PERFECT
    faults: list[str] = []
    seen: list[_Seen] = []
    judged: list[_Judged] = []
    lengths: list[int] = []
    for done, (split, where, row) in enumerate(_rows(folder, manifest, faults), 1):
        example = Example.of(row)
        prompt, both = example.prompt, f"{example.prompt}\n{example.answer}"
        seen.append((example.id, split, _digest(prompt), _digest(both)))
        if progress and (done % 200 == 0 or done == total):
            progress(done, total)
        if done % judge_every:
            continue
        try:
            judged.append(_judge(example, split, targets))
        except ElleError as error:
            faults.append(f"{where}: {error.what}")
        else:
            if tokens and done % count_every == 0:
                lengths.append(sum(map(tokens, example[1:])))
    if not judged:
        raise ElleError("no row of this set can be read", where=str(folder), fix=faults[0] if faults else "")
    words = Counter(word for each in judged for word in each.words)
    findings = {
        "kind": manifest.get("kind"),
        "rows": {split: facts["rows"] for split, facts in manifest["splits"].items()},
        "rows_judged": len(judged),
        "files": {split: facts["sha256"] for split, facts in manifest["splits"].items()},
        "targets": dict(zip(targets, map(_share, zip(*(each.counts for each in judged), strict=True)), strict=True)),
        "risk_words": {name: words[name] for _, names in RISK_WORDS for name in names},
        "nations": _tally(len(each.metrics.nations) for each in judged),
        "cic": _cic([each.metrics for each in judged if each.metrics.cic]),
        "duplicates": _duplicates(seen, judged),
        "tokens": {"unit": unit} | _lengths(lengths) if lengths else None,
    }
    findings["faults"] = faults[:100] + _faults(findings)
    findings["passed"] = not findings["faults"]
    storage.write_json(folder / AUDIT, findings)
    storage.write_text(folder / CARD, card(manifest, findings))
    return findings


def _rows(folder: Path, manifest: Mapping[str, Any], faults: list[str]) -> Iterator[tuple[str, str, dict]]:
    """Each row as (split, where it stands, row); what is wrong with the files is added to `faults`."""
    for split, facts in manifest["splits"].items():
        path, number = folder / facts["file"], 0
        if not path.exists() or storage.sha256(path) != facts["sha256"]:
            faults.append(f"{facts['file']} is not the file that the manifest describes")
        for number, row in enumerate(dataset.rows_of(folder, split), 1):
            yield split, f"{facts['file']}:{number}", row
        if number != facts["rows"]:
            faults.append(f"{facts['file']} has {number} rows, the manifest says {facts['rows']}")


def verdict(folder: Path | str) -> list[str] | None:
    """Why the set in `folder` failed its audit: [] where it passed, None where there is no audit of these files."""
    path = Path(folder) / AUDIT
    if not path.exists():
        return None
    findings = storage.read_json(path)
    files = {split: facts["sha256"] for split, facts in dataset.load_manifest(folder)["splits"].items()}
    return findings["faults"] if findings["files"] == files else None


def refusals(folder: Path | str) -> list[str]:
    """Reasons not to train on the set in `folder`: its audit's faults; [] where it passed, or was not audited."""
    return [f"{paths.shown(folder)} fails its audit: {fault}" for fault in verdict(folder) or []]


def _judge(example: Example, split: str, targets: Sequence[str]) -> _Judged:
    name, _, prompt, answer = example
    record, metrics = judge(name, prompt, answer, answer), parse(prompt)
    # Recall of a target against itself: every figure in it counts, right or wrong.
    recall = sum(number.ok for number in record.findings), len(record.findings)
    counts = [recall if target == "numeric_recall" else record.counts[target] for target in targets]
    words: list[str] = []
    for category, (risk, _) in metrics.categories.items():
        text = record.texts.get(category, "").lower()
        words += [word for word in risk_band(risk) if word in text]
    return _Judged(split, f"{prompt}\n{answer}", metrics, counts, words)


def _share(counts: Iterable[tuple[int, int]]) -> float | None:
    tops, bottoms = zip(*counts, strict=True)
    return sum(tops) / sum(bottoms) if sum(bottoms) else None


def _tally(values: Iterable[Any]) -> dict[str, int]:
    return dict(sorted(Counter(map(str, values)).items()))


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


def _duplicates(seen: Sequence[_Seen], judged: Sequence[_Judged]) -> dict[str, Any]:
    """How many rows repeat another one; near-duplicates are looked for among the judged ones."""
    splits: dict[bytes, set[str]] = {}
    for _, split, prompt, _ in seen:
        splits.setdefault(prompt, set()).add(split)
    near, across = _near_duplicates([(each.split, each.text) for each in judged])
    return {
        "exact": len(seen) - len({text for _, _, _, text in seen}),
        "ids": len(seen) - len({name for name, _, _, _ in seen}),
        "prompts_in_several_splits": sum(len(there) > 1 for there in splits.values()),
        "near": near,
        "near_share": round(near / len(judged), 6),
        "near_pairs_across_splits": across,
    }


def _near_duplicates(texts: Sequence[tuple[str, str]]) -> tuple[int, int]:
    """How many texts are near-duplicates, and how many pairs of them stand in different splits.

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
    return len(near), across


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="backslashreplace"), digest_size=12).digest()


def _shingles(text: str) -> frozenset[str]:
    words = text.split()
    return frozenset(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))


def _lengths(lengths: Sequence[int]) -> dict[str, Any]:
    counts, edges = np.histogram(lengths, bins=20)
    return _spread(lengths) | {"histogram": {"edges": edges.round(1).tolist(), "counts": counts.tolist()}}


def _faults(findings: Mapping[str, Any]) -> list[str]:
    faults = [
        f"{name} of the targets is {value:.6f}, not 1"
        for name, value in findings["targets"].items()
        if value is not None and value < 1
    ]
    duplicates, cic, tokens = findings["duplicates"], findings["cic"], findings["tokens"]
    if duplicates["near_share"] >= MAX_NEAR:
        faults.append(f"{duplicates['near']} near-duplicates: {duplicates['near_share']:.2%} of the rows")
    if leaks := duplicates["prompts_in_several_splits"] + duplicates["near_pairs_across_splits"]:
        faults.append(f"{leaks} prompts or near-duplicates stand in more than one split")
    if duplicates["ids"]:
        faults.append(f"{duplicates['ids']} ids occur more than once")
    if tokens and tokens["mean"] > MAX_TOKENS.get(findings["kind"], np.inf):
        faults.append(f"{tokens['mean']:.0f} tokens an example, more than {MAX_TOKENS[findings['kind']]}")
    if cic:
        spread = cic["spread"].items()
        faults += [f"{name} is constant" for name, figure in spread if figure["sd"] == 0 and figure["n"] > 1]
        if wrong := cic["wrong_phase"] + cic["wrong_analogue"]:
            faults.append(f"{wrong} prompts name a phase or an analogue that their figures do not give")
        if findings["kind"] == "cic" and (rows := findings["rows_judged"]) >= PHASES_FROM:
            shares = {phase: cic["phases"].get(phase, 0) / rows for phase in criticality.PHASES}
            faults += [f"{phase} is {share:.1%} of the rows" for phase, share in shares.items() if share < MIN_PHASE]
    return faults


def audit_summary(findings: Mapping[str, Any]) -> dict[str, str]:
    """The findings in a line each: what was asked → what was found."""
    duplicates, judged = findings["duplicates"], findings["rows_judged"]
    lines = {f"{split} rows": f"{count:,}" for split, count in findings["rows"].items()}
    for name, value in findings["targets"].items():
        lines[f"{name} of the targets"] = "no such figures" if value is None else f"{value:.4f}"
    lines["exact duplicates"] = str(duplicates["exact"])
    lines[f"near-duplicates (Jaccard of word triples ≥ {NEAR})"] = str(duplicates["near"])
    lines["prompts in more than one split"] = str(duplicates["prompts_in_several_splits"])
    if tokens := findings["tokens"]:
        spread = f"mean {tokens['mean']:.0f}, {tokens['min']:.0f} to {tokens['max']:.0f}"
        lines[f"{tokens['unit']} an example"] = spread
    if cic := findings["cic"]:
        lines |= {f"phase {phase}": f"{count / judged:.1%}" for phase, count in cic["phases"].items()}
        lines["with a transition"] = f"{cic['transition_rate']:.1%}"
    return lines


def card(manifest: Mapping[str, Any], findings: Mapping[str, Any]) -> str:
    """The data card in markdown, for people and for a dataset hub (`card.md.j2`)."""
    import jinja2

    text = Path(__file__).with_name("card.md.j2").read_text(encoding="utf-8")
    template = jinja2.Template(text, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return template.render(manifest=manifest, found=findings, summary=audit_summary(findings))
