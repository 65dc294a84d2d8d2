"""The planner's memory and speed, held to what real GPUs said (tests/fixtures/gpu-rows.jsonl), and what a layer takes,
to the real modules."""

import statistics
from dataclasses import replace

import gpu_rows
import pytest

from elle.base import paths, storage
from elle.plan import memory, models
from elle.plan.memory import KEPT, Setup
from elle.plan.recipe import Zero

ROWS = list(storage.read_lines(paths.root() / "tests" / "fixtures" / "gpu-rows.jsonl"))
H200 = [row for row in ROWS if row["source"].startswith("measured")]


def faults() -> list[str]:
    """What is further off than it may be: one sentence each."""
    compared = [gpu_rows.compare(row) for row in ROWS]
    said = []
    for one in (one for one in compared if one.row in H200):
        for level, (predicted, measured) in one.memory.items():
            if abs(predicted / measured - 1) > 0.05:
                said.append(f"{one.row['run']}: {level}: {predicted:.1f} GB for {measured:.1f}")
        if not one.within:
            said.append(f"{one.row['run']}: speed")
    errors = {one.row["run"]: one.error for one in compared if one.row not in H200 and one.error is not None}
    if (median := statistics.median(map(abs, errors.values()))) > 0.05:
        said.append(f"published: {median:.1%} off on the median")
    said += [f"{run}: short by {-error:.1%}" for run, error in errors.items() if error < -0.08]
    timed = [one for one in compared if one.speed]
    if sum(one.within for one in timed) < 0.85 * len(timed):
        said.append(f"speed: outside the interval: {[one.row['run'] for one in timed if not one.within]}")
    return said


def test_memory_and_speed_are_near_what_gpus_said():
    assert faults() == []
    assert len(H200) == 7
    compared = [gpu_rows.compare(row) for row in ROWS]
    assert sum(one.error is not None for one in compared) >= 25
    for one in compared:  # a row that holds nothing says why
        assert (one.error is None) == ("memory_not_held" in one.row or one.level is None)
        assert one.level or "memory_not_held" in one.row
        assert one.speed is None or one.speed[1] / one.speed[0] <= 1.6 + 1e-6
    listed = {line["run"] for line in gpu_rows.table(compared)}
    assert len(listed) == len(ROWS)
    assert "Qwen2.5-3B, full, ZeRO-3 in fp32, 1 x H200, 8 x 2048, Liger (f3z3)" in listed


@pytest.mark.parametrize("row", H200, ids=lambda row: row["run"])
def test_each_state_is_what_was_measured(row):
    s, _ = gpu_rows.setup(row)
    states = {name: size / 1e9 for name, size in memory._states(s).items()}
    trained = {dtype: count for dtype, count in row["parameters"].items() if dtype.endswith("*")}
    assert sum(trained.values()) == s.trained
    if s.upcast:  # and the norms
        assert trained["float32*"] == pytest.approx(2 * s.model.embedding, rel=0.001)
    before = sum(states[name] for name in ("weights", "adapter", "master"))
    if s.zero.stage == 3:  # it keeps room for the gradients from the beginning
        before += states["gradients"]
    assert row["states_gb"] == pytest.approx(before, rel=0.02)
    more = states["optimizer"] + memory.WORKSPACE / 1e9
    assert row["after_step_gb"] - row["states_gb"] == pytest.approx(more, rel=0.01, abs=0.015)


# What a layer takes: counted on the real modules (tests/layer_memory.py)

#: So many tokens that weights and their gradients are nothing beside what a token takes.
MANY = 2**20


@pytest.mark.real
@pytest.mark.parametrize(("way", "dropout"), KEPT)
def test_a_layer_keeps_and_takes_what_the_real_one_does(way, dropout):
    from layer_memory import counted

    for size in ("3B", "7B", "72B"):
        m = models.find(f"Qwen/Qwen2.5-{size}-Instruct")
        (one, _), (two, _) = (counted(m, MANY, way, 0.05 * dropout, layers=n, recompute=False) for n in (1, 2))
        h, f = KEPT[way, dropout]
        assert h * m.hidden + f * m.ffn == pytest.approx((two - one) / (2 * MANY), rel=0.02)
        (one, _), (two, most) = (counted(m, MANY, way, 0.05 * dropout, layers=n) for n in (1, 2))
        s = Setup(m, way, 1, 1, Zero(), "x", 1, MANY, True, True, False, dropout=dropout)
        s = replace(s, method="full", upcast=True) if way == "upcast" else replace(s, kernels=way == "kernels")
        inputs, layer = memory._activations(s)
        assert inputs / m.layers == pytest.approx(two - one, rel=0.005)
        assert layer == pytest.approx(most - 2 * (two - one), rel=0.02)


@pytest.mark.real
@pytest.mark.parametrize(("size", "tokens"), [("3B", 4096), ("7B", 4096), ("72B", 6144)])
def test_a_4_bit_layer_takes_a_linear_in_16_bits_beside_it(size, tokens):
    from layer_memory import RANK, counted

    m = models.find(f"Qwen/Qwen2.5-{size}-Instruct")
    s = Setup(m, "qlora", m.lora(RANK), 1, Zero(), "x", 1, tokens, True, True, False, kernels=True)
    for dropout in (True, False):
        _, most = counted(m, tokens, "kernels", 0.05 * dropout, four_bit=True)
        most -= 2 * 2 * m.hidden * tokens + 4 * m.lora(RANK) / m.layers  # two layers' inputs, and the gradients
        assert memory._activations(replace(s, dropout=dropout))[1] == pytest.approx(most, rel=0.05)


@pytest.mark.real
def test_the_loss_takes_twelve_bytes_a_token_and_word():
    from layer_memory import counted

    m = models.find("Qwen/Qwen2.5-3B-Instruct")
    less, more = (counted(m, MANY, "full", vocab=words)[1] for words in (32_000, 64_000))
    assert (more - less) / (MANY * 32_000) == pytest.approx(memory.LOGITS, rel=0.01)
