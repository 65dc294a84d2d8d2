"""The judge against answers that one change makes false: none of them may be all right."""

import itertools
import json
import random
from collections import Counter
from functools import cache

import pytest
from hostile import KINDS, MAKERS, Target, mutate

from elle.briefings import dataset
from elle.briefings.schema import Example
from elle.evaluation.verdict import judge

COUNT, ENOUGH = 2000, 100


@cache
def targets() -> list[tuple[str, str]]:
    """(prompt, answer) of rows of both sets."""
    examples = [Example.of(dataset.row(kind, 29, index)) for kind in dataset.KINDS for index in range(150)]
    return [(each.prompt, each.answer) for each in examples]


def test_no_mutation_is_all_right():
    pick, kinds, sets, missed = random.Random(11), Counter(), Counter(), []
    for _ in range(2 * COUNT):
        (prompt, answer), kind = pick.choice(targets()), pick.choice(KINDS)
        output = mutate(prompt, answer, kind, pick)
        if output is None:
            continue
        kinds[kind] += 1
        sets["CIC" in prompt] += 1
        try:
            record = judge("x", prompt, answer, output)
        except Exception as error:  # a judge that ends is no judge
            missed.append((kind, repr(error), prompt, output))
            continue
        assert record.counts["schema"] == (1, 1), output
        if record.counts["all_right"] == (1, 1):
            missed.append((kind, "all right", prompt, output))
        if kinds.total() == COUNT:
            break
    assert kinds.total() == COUNT
    assert min(kinds[kind] for kind in KINDS) >= ENOUGH
    assert min(sets.values()) > COUNT / 3
    if missed:
        shown = "\n\n".join("\n".join(each) for each in missed[:20])
        pytest.fail(f"{len(missed)} of {COUNT}:\n\n{shown}", pytrace=False)


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_is_found(kind):
    pick = random.Random(12)
    for maker in MAKERS[kind]:
        found = sum(bool(maker(Target(prompt, answer, pick))) for prompt, answer in targets())
        assert found >= 20, maker


def test_a_figure_said_once_more_is_all_right():
    """So that it is the change in such a sentence that fails it."""
    pick, added = random.Random(13), set()
    for prompt, answer in itertools.islice(itertools.cycle(targets()), 600):
        target = Target(prompt, answer, pick)
        place = target.place(anew=1)
        record = judge("x", prompt, answer, json.dumps(target.texts))
        assert record.counts["all_right"] == (1, 1), record.reasons
        added.add(place.metric)
    assert len(added) > 30
