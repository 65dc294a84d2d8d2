#!/usr/bin/env bash
# Axolotl: one row cannot be held out by `val_set_size: 1`, but by 1.5.
#
# One would guess: as val_set_size: 2 holds out two rows, 1 holds out one; or all, as its description says ("1 = 100%").
# What happens: the validator makes 1.0 of it, which datasets refuses when the data are split. What is above 1 is cut to
# a whole number, so 1.5 holds out one row.
# Versions: axolotl 0.21.0, datasets 5.0.1. Seen 2026-11-28:
#
#   val_set_size: 1 of 10 rows: test_size=1.0 should be either positive and smaller than the number of samples 10 or a
#   float in the (0, 1) range
#   val_set_size: 1.5 of 10 rows: 1
#   val_set_size: 2 of 10 rows: 2
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

from axolotl.cli.config import load_cfg
from axolotl.common.datasets import load_datasets

if __name__ == "__main__":
    found = []
    for size in ("1", "1.5", "2"):
        text = f"{Path('common.yaml').read_text()}val_set_size: {size}\noutput_dir: out\nnum_epochs: 1\n"
        Path("run.yaml").write_text(text + "dataset_prepared_path: prepared\n")
        config = load_cfg("run.yaml")
        try:
            found.append((size, len(load_datasets(cfg=config).eval_dataset)))
        except ValueError as error:
            found.append((size, str(error)))
    Path("result").write_text("".join(f"val_set_size: {size} of 10 rows: {what}\n" for size, what in found))
    (_, refused), *others = found
    sys.exit(0 if "test_size=1.0 should be" in str(refused) and others == [("1.5", 1), ("2", 2)] else "it changed")
END
.venv/bin/python check.py >log 2>&1 || { cat result || true; tail -n 20 log; exit 1; }
cat result
