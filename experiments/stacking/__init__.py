"""The stacking experiment: stage 1 on worked sums, stage 2 on CIC assessments in several ways (arms), each trained by
Axolotl, for one seed or several; then both kinds of question put to every model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from elle.base import paths
from elle.base.errors import ElleError, unknown
from elle.base.yaml_files import read_yaml
from elle.briefings import dataset
from elle.training import history, launch, nano
from elle.training.launch import Trained
from experiments.stacking import batch, curriculum
from experiments.stacking.scores import Scores, across, judge, score

STAGE_1 = "stage1"
MAX_TOKENS = 224  # of an answer: a worked assessment takes some 165
#: Model → finished trainings, one per seed.
Models = dict[str, list[Trained]]


@dataclass(frozen=True)
class Arm:
    """A way of stage 2. recipe: which of the experiment's; data: its set; stacked: on stage 1, or on nothing; replay:
    with sums among its rows."""

    what: str
    recipe: str
    data: str = "worked"
    stacked: bool = True
    replay: bool = False


#: The arms by name, the documents' way first.
ARMS = {
    "low": Arm("one epoch at a low rate: the documents' way", "low"),
    "high": Arm("a high rate, several epochs", "high"),
    "lora": Arm("as many epochs, by LoRA: the weights of stage 1 stay", "lora"),
    "replay": Arm("as high, with sums among the rows", "high", replay=True),
    "alone": Arm("as high, without stage 1", "high", stacked=False),
    "plain": Arm("as high, the answers without steps", "high", data="plain"),
}


def arms_of(names: str) -> list[str]:
    """The arms of a list such as `low,high`, in the order of `ARMS`; an ElleError for an unknown arm, or none."""
    named = [name.strip() for name in names.split(",") if name.strip()]
    for name in named:
        if name not in ARMS:
            raise unknown("arm", name, ARMS, where="parameter arms")
    if not named:
        raise ElleError("no arm is named", where="parameter arms", fix=f"some of: {', '.join(ARMS)}")
    return [name for name in ARMS if name in named]


def seeds_of(numbers: str) -> list[int]:
    """The seeds of a list such as `1,2,3`; an ElleError where it is not one."""
    try:
        seeds = sorted({int(number) for number in numbers.split(",")})
    except ValueError:
        seeds = []
    if not seeds or seeds[0] < 0 or seeds[-1] >= 2**32:
        raise ElleError(f"{numbers!r} lists no seeds", where="parameter seeds", fix="such as 1 or 1,2,3")
    return seeds


@dataclass(frozen=True)
class Experiment:
    """What is to be trained, in a folder of its own; what is done already is found done.

    seeds: each one's sets, untrained base and order of training are its own. recipes: `sums` (stage 1), and those that
    `ARMS` name. base: a YAML file with the sizes of a nano base. sums, assessments: training rows; questions: unseen
    rows of either kind to ask. replay: sums for each assessment in the rows of a replay.
    """

    folder: Path
    seeds: Sequence[int]
    arms: Sequence[str]
    recipes: Mapping[str, str]
    base: str
    sums: int
    assessments: int
    questions: int
    replay: float

    def path(self, seed: int, *parts: str) -> Path:
        return self.folder.joinpath(f"seed-{seed}", *parts)

    def prepare(self) -> list[dict[str, Any]]:
        """Make each seed's sets, the rows of a replay, and the untrained base, whose tokenizer is trained on the
        latter; the sets' rows, for display."""
        made = []
        for seed in self.seeds:
            for kind, count in {"sums": self.sums, "worked": self.assessments, "plain": self.assessments}.items():
                manifest = curriculum.build(kind, count, self.questions, seed, self.path(seed, kind))
                rows = {split: facts["rows"] for split, facts in manifest["splits"].items()}
                made.append({"set": kind, "seed": seed} | rows)
            shares = {"worked": 1.0, "sums": min(1.0, self.replay * self.assessments / self.sums)}
            mixed = self.path(seed, "replay.jsonl")
            curriculum.mix({self.path(seed, kind): part for kind, part in shares.items()}, mixed, seed)
            sizes = read_yaml(paths.located(self.base), "base") | {"seed": seed}
            nano.make_base(nano.Sizes(**sizes), mixed, self.path(seed, "base"))
        return made

    @staticmethod
    def length(kind: str) -> float:
        """Tokens per row of a set, on average over its first 200 rows, in pieces of Qwen2's pre-tokenisation."""
        examples = [example for _, example in islice(curriculum.examples(kind, 1), 200)]
        return sum(nano.pieces(text) for example in examples for text in example[1:]) / len(examples)

    def stage_1(self, say: Callable[[str], None] = print) -> Models:
        """Train on sums, from nothing."""
        first = Arm("", "sums", data="sums", stacked=False)
        return {STAGE_1: [self._train(seed, STAGE_1, first, self.path(seed, "base"), say) for seed in self.seeds]}

    def stage_2(self, first: Models, say: Callable[[str], None] = print) -> Models:
        """Train the arms on assessments, on top of the `first` stage or beside it."""
        trained: Models = {name: [] for name in self.arms}
        for seed, below in zip(self.seeds, first[STAGE_1], strict=True):
            for name in self.arms:
                base = below.weights if ARMS[name].stacked else self.path(seed, "base")
                trained[name].append(self._train(seed, name, ARMS[name], base, say))
        return trained

    def _train(self, seed: int, name: str, arm: Arm, base: Path, say: Callable[[str], None]) -> Trained:
        data = self.path(seed, arm.data)
        prepared = launch.prepare(
            self.recipes[arm.recipe],
            self.path(seed, "train", name),
            base_model=base,
            train=self.path(seed, "replay.jsonl") if arm.replay else data / "train.jsonl",
            validation=data / "validation.jsonl",
            seed=seed,
        )
        described = partial(history.line, hourly=prepared.hourly)
        return launch.follow(
            prepared, launch.start_training(prepared), lambda entry: say(f"seed {seed}, {name}: {described(entry)}")
        )

    def ask(self, models: Models, progress: Callable[[int, int], None] | None = None) -> dict[str, list[Scores]]:
        """Put the unseen questions of both kinds to every model (adapters merged); its scores, one per seed. Of the
        assessments it gets those of its own stage 2."""
        scores: dict[str, list[Scores]] = {name: [] for name in models}
        for place, seed in enumerate(self.seeds):
            rows = {kind: dataset.read_split(self.path(seed, kind), "test") for kind in ("sums", "worked", "plain")}
            for number, (name, trained) in enumerate(models.items()):
                model = trained[place]
                weights = launch.merge_adapter(model) if model.adapter else model.weights
                kinds = ("sums", ARMS[name].data if name in ARMS else "worked")
                outputs = []
                for kind in kinds:
                    file = self.path(seed, "outputs", f"{name}-{kind}.jsonl")
                    outputs.append(batch.answer(weights, rows[kind], file, max_tokens=MAX_TOKENS))
                    if progress:
                        progress(2 * number + len(outputs), 2 * len(models))
                scores[name].append(score(rows["sums"], outputs[0], rows[kinds[1]], outputs[1]))
        return scores


def results(models: Models, scores: Mapping[str, Sequence[Scores]], seeds: Sequence[int]) -> dict[str, Any]:
    """What came out, as plain values: `seeds`; `models`, by name: what it is, steps, seconds, all seeds' questions
    together (`pooled`), each seed's and, for several, the mean and its interval (`across`); `statements` on trial."""
    described = {}
    for name, each in scores.items():
        values = {"sums": [one.sums.mean() for one in each], "gain": [one.gain.mean() for one in each]}
        described[name] = {
            "what": ARMS[name].what if name in ARMS else "sums with worked steps, from nothing",
            "steps": [trained.steps for trained in models[name]],
            "seconds": [round(trained.seconds, 1) for trained in models[name]],
            "pooled": Scores.pooled(each).to_json(),
            "by_seed": [one.to_json() for one in each],
            "across": {kind: across(shares) for kind, shares in values.items()},
        }
    return {"seeds": list(seeds), "models": described, "statements": judge(scores)}


def percent(estimate: Mapping[str, Any]) -> str:
    """A share with its interval, in per cent."""
    return f"{100 * estimate['value']:.1f} [{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"


def table(outcome: Mapping[str, Any]) -> list[dict[str, str]]:
    """The models of `results`, a row each: shares in per cent with Wilson's intervals over all seeds' questions and, of
    several seeds, the mean with its interval across them."""
    rows = []
    for name, model in outcome["models"].items():
        row = {"model": name, "what": model["what"], "steps": str(model["steps"][0])}
        for kind in ("sums", "form", "gain", "right"):
            row[f"{kind} (%)"] = percent(model["pooled"][kind])
            if model["across"].get(kind):
                row[f"{kind}, across seeds"] = percent(model["across"][kind])
        rows.append(row)
    return rows


def trials(outcome: Mapping[str, Any]) -> list[dict[str, str]]:
    """The statements of `results`, a row each: differences in percentage points."""

    def points(value: float) -> str:
        return f"{100 * value:+.1f}".replace("-", "−")

    return [
        {
            "the documents say": each["says"],
            "compared": each["of"],
            "shares (%)": f"{100 * each['before']:.1f} → {100 * each['after']:.1f}",
            "difference": f"{points(each['difference'])} [{points(each['low'])}, {points(each['high'])}]",
            "p": f"{each['p']:.2g}",
            "by seed": ", ".join(map(points, each["by_seed"])),
            "verdict": each["verdict"],
        }
        for each in outcome["statements"]
    ]
