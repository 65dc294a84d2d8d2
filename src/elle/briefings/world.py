"""The simulated world of the CIC set: coupled histories of country risk, and the figures that `cic` computes
from them.

Model. Nation i has a latent activity xᵢ with two stable branches, calm (near −1) and crisis (near +1), in the field's
standard form of a fold (Scheffer 2009), coupled to the others and to a shared driver:

    dxᵢ = (c(t) + xᵢ − xᵢ³ + κ·(x̄ − xᵢ)) dt + σ(t)·(√ρ·dW₀ + √(1 − ρ)·dWᵢ)

over 60 months of half a unit of time (Euler, two steps a month), after 24 months of settling. κ is spill-over, ρ the
share of the shared driver W₀, c the pressure: beyond c = ±0.385 one branch is gone. Its risk is
rᵢ = logistic(logit bᵢ + 0.7·xᵢ), bᵢ being the country's base risk + U(−0.1, 0.1). A category's index follows the
world, y(t) = 0.8·y(t−1) + 0.2·(a + 0.8·x̄(t)) + 0.12·N(0, 1) with a ~ N(0, 0.9²), its risk is 0.5 + 0.25·y clipped to
0..1. `REGIMES` says what c, σ, ρ and κ do; regimes are drawn with `WEIGHTS` (natural: all alike). Of the signals:
w = (x̄ + 1.5)/3 clipped to 0..1 now, articles ~ U(0, 120 + 180 w), tone ~ N(2 − 7 w, 2), alerts ~ Poisson(12 w).

Figures, of the last 24 months (Φ, H, temperature, order) or of all 60, rounded to what the prompt prints before
anything is computed from them; "prior" is the window that ended a year before:
    Φ: minimum information bipartition of the nations' risks, nats (`information`; two nations at least)
    H: normalised Gaussian entropy of the same covariance, resolution 0.01, span 1
    C: effective information of the 3 × 3 transition matrix between terciles of the mean risk (one pseudo-count a row,
       spread evenly), over its maximum log₂ 3
    balance: ΔΦ − 0.3·ΔH over the last year
    temperature: s/(s + 0.15), s the mean standard deviation of the log-odds of risk
    order: (λ₁ − 1)/(n − 1), λ₁ the largest eigenvalue of the correlation matrix: 1 where all move as one
    phase: `classify_phase` of the printed temperature and order, with the printed prior ones
    tau variance, tau autocorrelation: early warnings of the mean risk (window a half, detrended with bandwidth 0.1)
    transition: how many months ago, in the last 24, the simulated x̄ changed branch (beyond ±0.5, and back only beyond
       the other); the last one counts
    agreement: of seven simple forecasts of the mean category risk, the share in the best cluster (neighbours within
       2 %) times its cohesion
    analogue, distance: `analogues.nearest` of the printed category risks over 100

One example in twenty is an edge case: no nations, one nation, all zero or all 100 (a history that never moved: Φ, H, C
and temperature 0, neither order nor phase), missing signals.

Examples are drawn in whole blocks, as those of `scenario` are.
"""

from decimal import Decimal
from typing import NamedTuple

import numpy as np

from cic import analogues, causality, consensus, criticality, functional, information
from elle.briefings.cic_figures import CIC_SECTIONS, CicFigures, decimals
from elle.briefings.metrics import Metrics
from elle.briefings.scenario import BLOCK, CIC_COUNTRIES, by_category, listed, signals
from elle.briefings.schema import CATEGORIES

MONTHS, WINDOW, LAG, SETTLE = 60, 24, 12, 24
MIN_NATIONS, MAX_NATIONS = 2, 5
HORIZONS = (1, 2, 3, 6, 12)  # months
AGREEING = 0.02  # forecasts that differ by less, relatively, agree

#: What moves a world: calm; drifting towards the fold and short of it; over it; back from turmoil; turmoil.
REGIMES = ("calm", "approach", "shift", "relaxation", "turmoil")
#: How often each is drawn, so that every phase is at least a tenth of a set (measured: data/README.md).
WEIGHTS = (0.17, 0.16, 0.18, 0.23, 0.26)

EDGE_CASES = {"no nations": 0.012, "one nation": 0.012, "all zero": 0.003, "all 100": 0.003, "missing signals": 0.02}

_CODES = tuple(CIC_COUNTRIES)
_BASES = np.array(list(CIC_COUNTRIES.values()))
_STEPS, _DT, _GAIN, _T0 = 2, 0.25, 0.7, 0.15
_ARROWS = np.array(("→", "↑", "↓"))  # by sign: 0, 1, -1
_PRINTED = (*CIC_SECTIONS["CIC"], *CIC_SECTIONS["PHASE"][:-1], "agreement")


class Histories(NamedTuple):
    """count worlds. latent: x̄ (count, MONTHS); risks: (count, MONTHS, MAX_NATIONS) and categories: (count, MONTHS, 6),
    0..1; nations: how many of the first of MAX_NATIONS exist; codes: their places among the countries; regime: a place
    in REGIMES; edge: a name of EDGE_CASES or ""."""

    latent: np.ndarray
    risks: np.ndarray
    categories: np.ndarray
    nations: np.ndarray
    codes: np.ndarray
    regime: np.ndarray
    edge: np.ndarray


def generator(seed: int, block: int) -> np.random.Generator:
    """The generator of one block; independent of every other (seed, block), and of the basic set's."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, block], np.uint64), counter=[0, 0, 0, 1 << 63]))


def simulate(rng: np.random.Generator, count: int = BLOCK, weights=WEIGHTS) -> Histories:
    """Draw `count` histories."""
    regime = rng.choice(len(REGIMES), count, p=np.asarray(weights) / np.sum(weights))
    edge = rng.choice(["", *EDGE_CASES], count, p=[1 - sum(EDGE_CASES.values()), *EDGE_CASES.values()])
    nations = rng.integers(MIN_NATIONS, MAX_NATIONS + 1, count)
    nations[edge == "no nations"], nations[edge == "one nation"] = 0, 1
    codes = rng.permuted(np.tile(np.arange(len(_CODES)), (count, 1)), axis=1)[:, :MAX_NATIONS]

    pressure, noise, shared, spill, x = _regimes(rng, regime)
    # Without nations the printed categories still follow a world: one of nations that nobody lists.
    member = np.arange(MAX_NATIONS) < np.where(nations, nations, MAX_NATIONS)[:, None]
    weight = member / member.sum(axis=1, keepdims=True)
    common, own = np.sqrt(shared)[:, None], np.sqrt(1 - shared)[:, None]
    path = np.empty((count, MONTHS, MAX_NATIONS))
    for month in range(-SETTLE, MONTHS):
        shocks = rng.standard_normal((_STEPS, count, MAX_NATIONS + 1)) * np.sqrt(_DT)
        now = max(month, 0)
        for shock in shocks:
            mean = (weight * x).sum(axis=1, keepdims=True)
            drift = pressure[:, now, None] + x - x**3 + spill[:, None] * (mean - x)
            x = x + drift * _DT + noise[:, now, None] * (common * shock[:, :1] + own * shock[:, 1:])
            x = np.clip(x, -2.5, 2.5)  # an Euler step from far out would overshoot
        if month >= 0:
            path[:, month] = x
    latent = (weight[:, None] * path).sum(axis=2)

    base = np.clip(_BASES[codes] + rng.uniform(-0.1, 0.1, codes.shape), 0.03, 0.97)
    risks = 1 / (1 + np.exp(-np.log(base / (1 - base))[:, None] - _GAIN * path))
    level = rng.normal(0, 0.9, (count, len(CATEGORIES)))
    steps = 0.12 * rng.standard_normal((count, MONTHS, len(CATEGORIES)))
    index = level + 0.8 * latent[:, :1]
    categories = np.empty(steps.shape)
    for month in range(MONTHS):
        index = 0.8 * index + 0.2 * (level + 0.8 * latent[:, month, None]) + steps[:, month]
        categories[:, month] = np.clip(0.5 + 0.25 * index, 0, 1)
    for name, value in (("all zero", 0.0), ("all 100", 1.0)):
        risks[edge == name] = categories[edge == name] = latent[edge == name] = value
    return Histories(latent, risks, categories, nations, codes, regime, edge)


def first(worlds: Histories, regime: str, nations: int = 4) -> int:
    """The place of the first ordinary world of a regime with at least so many nations: one to show."""
    ordinary = (worlds.regime == REGIMES.index(regime)) & (worlds.edge == "") & (worlds.nations >= nations)
    return int(np.flatnonzero(ordinary)[0])


def _regimes(rng: np.random.Generator, regime: np.ndarray) -> tuple[np.ndarray, ...]:
    """Pressure c and noise σ (count, MONTHS); shared ρ and spill-over κ (count,); first activities (count, nations)."""
    count, month = len(regime), np.arange(MONTHS)
    u = rng.random((5, count))
    kinds = [regime == place for place in range(len(REGIMES))]

    def span(place: int, *bounds: tuple[float, float]) -> np.ndarray:
        return np.select(kinds, [low + u[place] * (high - low) for low, high in bounds])

    noise = span(0, (0.05, 0.16), (0.08, 0.2), (0.1, 0.3), (0.1, 0.3), (0.5, 1.1))
    shared = span(1, (0.5, 0.98), (0.3, 0.8), (0.2, 0.7), (0.3, 0.8), (0.0, 0.3))
    spill = span(2, (0.2, 1.0), (0.2, 0.8), (0.2, 0.8), (0.2, 0.8), (0.0, 0.2))
    final = span(3, (-0.4, -0.2), (0.2, 0.35), (0.6, 0.9), (-0.4, -0.1), (-0.3, 0.3))
    moment = span(4, (0, 0), (0, 0), (30, 54), (24, 48), (0, 0))[:, None]
    start = np.select(kinds, [final, -0.4, -0.3, 0.2, final])[:, None]
    final = final[:, None]
    rise = start + (final - start) * month / (MONTHS - 1)
    step = np.where(month < moment, start, final)
    pressure = np.select([kind[:, None] for kind in kinds], [rise, rise, step, step, rise])
    # Relaxation: noise of a turmoil that dies away, by a factor e in six months.
    after = np.maximum(month - moment, 0)
    noise = noise[:, None] + np.where(kinds[3][:, None], 0.7 * np.exp(-after / 6), 0)
    first = np.select(kinds, [-1, -1, -1, 1, 0])[:, None] * np.ones(MAX_NATIONS)
    return pressure, noise, shared, spill, first


class Measures(NamedTuple):
    """Float arrays (count,), nan where a figure does not exist; unrounded. `transition`: months ago, nan for none."""

    figures: dict[str, np.ndarray]
    transition: np.ndarray


def measure(worlds: Histories) -> Measures:
    """The CIC figures of histories, by name."""
    count = len(worlds.nations)
    windows = {"": worlds.risks[:, MONTHS - WINDOW :], "prior ": worlds.risks[:, MONTHS - WINDOW - LAG : MONTHS - LAG]}
    names = ("Φ", "H", "temperature", "order")
    figures = {when + name: np.full(count, np.nan) for when in windows for name in names}
    for nations in range(1, MAX_NATIONS + 1):
        rows = np.flatnonzero(worlds.nations == nations)
        if not len(rows):
            continue
        for when, risks in windows.items():
            for name, values in zip(names, _of_window(risks[rows, :, :nations]), strict=True):
                figures[when + name][rows] = values
    change = (figures[name] - figures[f"prior {name}"] for name in ("Φ", "H"))
    figures["balance"] = next(change) - functional.LAMBDA * next(change)

    some = worlds.nations > 0
    member = np.arange(MAX_NATIONS) < worlds.nations[:, None]
    mean = (worlds.risks * member[:, None]).sum(axis=2) / np.maximum(worlds.nations, 1)[:, None]
    figures["C"] = np.where(some, _causal_power(mean), np.nan)
    taus = criticality.early_warning_signals(mean, window=0.5, bandwidth=0.1)[2:]
    for name, tau in zip(("tau variance", "tau autocorrelation"), taus, strict=True):
        figures[name] = np.where(some, tau, np.nan)
    figures["agreement"] = np.array([_agreement(series) for series in worlds.categories.mean(axis=2)])
    return Measures(figures, np.where(some, _transition(worlds.latent), np.nan))


def _of_window(risks: np.ndarray) -> tuple[np.ndarray, ...]:
    """Φ, H, temperature and order of risks (count, WINDOW, nations)."""
    nations = risks.shape[2]
    centred = risks - risks.mean(axis=1, keepdims=True)
    covariance = np.einsum("bti,btj->bij", centred, centred) / (WINDOW - 1)
    moving = np.ptp(risks, axis=1) > 0
    still = ~moving.all(axis=1)
    covariance[still] = 0
    safe = np.clip(risks, 1e-9, 1 - 1e-9)
    spread = np.log(safe / (1 - safe)).std(axis=1).mean(axis=1)
    entropy = information.normalized_entropy_gaussian(covariance, resolution=0.01, span=1.0)
    if nations == 1:
        nothing = np.full(len(risks), np.nan)
        return nothing, entropy, spread / (spread + _T0), nothing
    deviations = np.sqrt(np.einsum("bii->bi", np.where(still[:, None, None], np.eye(nations), covariance)))
    correlation = covariance / deviations[:, :, None] / deviations[:, None, :]
    order = (np.linalg.eigvalsh(correlation)[:, -1] - 1) / (nations - 1)
    phi = information.minimum_information_bipartition(covariance).value
    return phi, entropy, spread / (spread + _T0), np.where(still, np.nan, np.clip(order, 0, 1))


def _causal_power(mean: np.ndarray) -> np.ndarray:
    """C of series (count, MONTHS); a constant has none."""
    low, high = np.quantile(mean, (1 / 3, 2 / 3), axis=1)
    states = (mean > low[:, None]).astype(int) + (mean > high[:, None])
    moves = 9 * np.arange(len(mean))[:, None] + 3 * states[:, :-1] + states[:, 1:]
    counts = np.bincount(moves.ravel(), minlength=9 * len(mean)).reshape(-1, 3, 3) + 1 / 3
    chances = counts / counts.sum(axis=2, keepdims=True)
    power = np.array([causality.effective_information(P) for P in chances]) / np.log2(3)
    return np.where(np.ptp(mean, axis=1) > 0, power, 0)


def _agreement(series: np.ndarray) -> float:
    """Forecasts for the next month: the last value; the means of 3, 6 and 12 months; the trends of 6 and 12 months,
    carried on; exponential smoothing (0.3 a month)."""
    forecasts = _FORECASTERS @ series[-12:]
    cluster = consensus.best_cluster(forecasts, AGREEING)
    return len(cluster) / len(forecasts) * consensus.cohesion(cluster)


def _forecasters() -> np.ndarray:
    """Every forecast is a weighted sum of the last 12 months: shape (7, 12)."""
    rows = [np.where(np.arange(12) >= 12 - k, 1 / k, 0) for k in (1, 3, 6, 12)]
    for k in (6, 12):
        t = np.arange(k) - (k - 1) / 2
        line = 1 / k + t * (k + 1) / 2 / (t @ t)  # the regression line, one month ahead
        rows.append(np.concatenate([np.zeros(12 - k), line]))
    smoothing = 0.7 ** np.arange(11, -1, -1)
    rows.append(smoothing / smoothing.sum())
    return np.array(rows)


_FORECASTERS = _forecasters()


def _transition(latent: np.ndarray) -> np.ndarray:
    """Months since the last change of branch in the last WINDOW months; nan where there was none."""
    side = np.zeros(len(latent))
    ago = np.full(len(latent), np.nan)
    for month in range(MONTHS):
        here = np.where(np.abs(latent[:, month]) > 0.5, np.sign(latent[:, month]), side)
        changed = (here != side) & (side != 0)
        ago[changed] = MONTHS - 1 - month
        side = here
    return np.where(ago < WINDOW, ago, np.nan)


def draw(rng: np.random.Generator, count: int = BLOCK, weights=WEIGHTS) -> list[Metrics]:
    """Draw the metrics of `count` moments: what a prompt prints."""
    worlds = simulate(rng, count, weights)
    figures, transition = measure(worlds)
    rounded = {name: np.rint(10 ** decimals(name) * np.nan_to_num(v)).astype(int) for name, v in figures.items()}
    exists = {name: ~np.isnan(values) for name, values in figures.items()}
    phased = exists["order"] & exists["prior order"]
    printed = [rounded[name] / 100 for name in ("temperature", "order", "prior temperature", "prior order")]
    phases = criticality.classify_phase(printed[0], printed[1], previous=(printed[2], printed[3]))

    tension = np.clip((worlds.latent[:, -1] + 1.5) / 3, 0, 1)
    observed = zip(*signals(rng, tension, worlds.edge == "missing signals"), strict=True)
    horizon = rng.choice(HORIZONS, count)
    nations = listed(np.array(_CODES)[worlds.codes], worlds.risks[:, -1], worlds.nations)
    categories = np.rint(100 * worlds.categories[:, [-1, -4]]).astype(int)
    trend = np.sign(np.where(np.abs(move := categories[:, 0] - categories[:, 1]) > 2, move, 0))

    drawn = []
    for i, (articles, tone, alerts) in enumerate(observed):
        values = {
            name: Decimal(int(rounded[name][i])).scaleb(-decimals(name))
            for name in _PRINTED
            if exists[name][i] and (phased[i] or "order" not in name)
        }
        if not np.isnan(transition[i]):
            values["transition"] = Decimal(int(transition[i]))
        match = analogues.nearest(categories[i, 0] / 100)[0]
        values["horizon"] = Decimal(int(horizon[i]))
        values["distance"] = Decimal(round(100 * match.distance)).scaleb(-2)
        drawn.append(
            Metrics(
                nations[i],
                articles,
                tone,
                alerts,
                by_category(categories[i, 0].tolist(), _ARROWS[trend[i]].tolist()),
                CicFigures(values, str(phases[i]) if phased[i] else None, match.correlate.dated),
            )
        )
    return drawn
