#!/usr/bin/env bash
# Axolotl: its validator passes any word as an optimizer, and its own list has two that cannot be used.
#
# One would guess: as the schema has a list of optimizers, a recipe that passes the validation names a known one.
# What happens: the field is `str | CustomSupportedOptimizers`, so every word passes. A misspelt one is refused when the
# trainer is built, after the data are prepared and the model is loaded. So are ao_adamw_4bit and ao_adamw_8bit, which
# are in the list: of its three "ao" names the builder knows only ao_adamw_fp8.
# Versions: axolotl 0.21.0, transformers 5.20.1, torch 2.13.0. Seen 2026-11-28:
#
#   adamw_torhc: valid, then: adamw_torhc is not a valid OptimizerNames, please select one
#   ao_adamw_8bit: valid, then: Unhandled optimizer: ao_adamw_8bit. Please raise an Issue.
#   ao_adamw_4bit: valid, then: Unhandled optimizer: ao_adamw_4bit. Please raise an Issue.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
unset PYTHONPATH
export CUDA_VISIBLE_DEVICES= HF_HUB_OFFLINE=1 HF_HOME="$work/hf" AXOLOTL_DO_NOT_TRACK=1
uv=uv
command -v uv >/dev/null || uv="python3 -m uv"
$uv venv -q --python 3.12 .venv
$uv pip install -q --python .venv axolotl==0.21.0 transformers==5.20.1 torch==2.13.0 peft==0.21.2 \
    accelerate==1.15.0 datasets==5.0.1 trl==1.14.1 bitsandbytes==0.50.2 deepspeed==0.19.8 numpy==2.3.5
cat >make.py <<'END'
import json

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

letters = sorted(pre_tokenizers.ByteLevel.alphabet())
words = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
words.decoder = decoders.ByteLevel()
PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|end|>", pad_token="<|pad|>").save_pretrained("base")
sizes = {"vocab_size": 264, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16}
Qwen2ForCausalLM(Qwen2Config(**sizes, num_attention_heads=2, num_key_value_heads=2)).save_pretrained("base")
with open("rows.jsonl", "w") as file:  # ten rows of 31 tokens
    file.writelines(json.dumps({"text": chr(97 + i) * 30}) + "\n" for i in range(10))
END
cat >common.yaml <<'END'
base_model: base
datasets: [{path: rows.jsonl, type: completion}]
dataset_num_proc: 1
sequence_len: 64
attn_implementation: sdpa
micro_batch_size: 1
learning_rate: 0.001
bf16: false
logging_steps: 1
END
.venv/bin/python make.py >log 2>&1 || { tail -n 20 log; exit 1; }

cat >check.py <<'END'
import sys
from pathlib import Path

from axolotl.cli.args import TrainerCliArgs
from axolotl.cli.config import load_cfg
from axolotl.cli.train import do_train

if __name__ == "__main__":
    found = {}
    for name in ("adamw_torhc", "ao_adamw_8bit", "ao_adamw_4bit"):
        text = f"{Path('common.yaml').read_text()}optimizer: {name}\noutput_dir: {name}\nmax_steps: 1\n"
        Path(f"{name}.yaml").write_text(text + "num_epochs: 1\ndataset_prepared_path: prepared\n")
        config = load_cfg(f"{name}.yaml")
        try:
            do_train(config, TrainerCliArgs())
        except ValueError as error:
            found[name] = str(error)
    lines = [f"{name}: valid, then: {what[:60].rstrip()}" for name, what in found.items()]
    Path("result").write_text("\n".join(lines) + "\n")
    misspelt, *listed = found.values()
    late = [f"Unhandled optimizer: {name}. Please raise an Issue." for name in ("ao_adamw_8bit", "ao_adamw_4bit")]
    sys.exit(0 if "is not a valid OptimizerNames" in misspelt and listed == late else "it changed")
END
.venv/bin/python check.py >log 2>&1 || { cat result || true; tail -n 20 log; exit 1; }
cat result
