"""Recipes as they are read, and the nano base."""

import json
import runpy
from importlib import metadata
from pathlib import Path

import pytest

from elle.base import paths, storage, yaml_files
from elle.base.errors import ElleError
from elle.plan import axolotl
from elle.training import nano

REFUSALS = yaml_files.read_yaml(paths.root() / "tests" / "fixtures" / "refusals.yaml")

# Recipes


def test_numbers_in_scientific_notation_are_numbers(tmp_path):
    # A bug of many configs: PyYAML reads 1e-5 as a string.
    path = tmp_path / "x.yaml"
    path.write_text("a: 1e-5\nb: 3E4\nc: -2.5e-3\nd: 5\ne: 0.1\nf: v1e-5\ng: 1.5\n")
    values = yaml_files.read_yaml(path)
    assert values == {"a": 1e-5, "b": 3e4, "c": -2.5e-3, "d": 5, "e": 0.1, "f": "v1e-5", "g": 1.5}
    assert isinstance(values["d"], int)


@pytest.mark.parametrize(("text", "what", "where"), REFUSALS["yaml"])
def test_faulty_yaml_is_named(tmp_path, text, what, where):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ElleError, match=what) as caught:
        yaml_files.read_yaml(path)
    assert caught.value.where == f"{path}{where}"


@pytest.mark.real
def test_the_known_keys_are_those_of_the_installed_axolotl(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    kept = json.loads(axolotl.keys_file().read_text())
    assert runpy.run_path(str(paths.root() / "requirements" / "axolotl_keys.py"))["keys"]() == kept
    assert kept["axolotl"] == metadata.version("axolotl")


# The nano base


def test_the_tokenizer_that_trains_is_the_one_that_serves(small_base, small_data):
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(small_base)
    assert type(loaded).__name__.startswith("Qwen2Tokenizer")
    row = next(storage.read_lines(small_data / "train.jsonl"))
    for text in (*(turn["value"] for turn in row["conversations"]), "a↑ ¿日本\n"):
        ids = loaded(text)["input_ids"]
        assert loaded.decode(ids) == text
        assert "日" in text or len(ids) <= nano.pieces(text)  # the merges were learned under the very same cuts
    assert loaded.tokenize(" political 74%") == ["Ġpolitical", "Ġ", "7", "4", "%"]
    text = loaded.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"  # ChatML
    assert loaded.eos_token == "<|im_end|>"


def test_a_base_is_the_same_every_time_and_made_once(tmp_path, small_data, small_base):
    def made() -> Path:
        base = nano.resolve_base("configs/smoke_base.yaml", small_data / "train.jsonl", tmp_path / "base")
        return Path(base) / "model.safetensors"

    assert made().read_bytes() == (small_base / "model.safetensors").read_bytes()
    before = made().stat().st_mtime_ns
    assert made().stat().st_mtime_ns == before


@pytest.mark.parametrize(("sizes", "what", "fix"), REFUSALS["sizes"])
def test_bad_base_sizes_are_refused(tmp_path, small_data, sizes, what, fix):
    path = tmp_path / "sizes.yaml"
    path.write_text(sizes)
    with pytest.raises(ElleError, match=what) as caught:
        nano.resolve_base(str(path), small_data / "train.jsonl", tmp_path / "base")
    assert fix in caught.value.fix


def test_a_base_is_sizes_a_name_or_the_recipes_own(tmp_path):
    with pytest.raises(ElleError, match="needs a data set"):
        nano.resolve_base("configs/smoke_base.yaml", None, tmp_path / "base")
    assert nano.resolve_base("", None, tmp_path / "base") is None
    assert nano.resolve_base("Qwen/Qwen2.5-7B-Instruct", None, tmp_path) == "Qwen/Qwen2.5-7B-Instruct"
