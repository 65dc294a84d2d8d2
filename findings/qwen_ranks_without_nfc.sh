#!/usr/bin/env bash
# transformers: a tokenizer converted from Qwen's own file of ranks gives other tokens for accents typed as two characters.
#
# One would guess: Qwen's ranks and Qwen's pattern make Qwen's tokenizer; that is all a tiktoken file needs.
# What happens: Qwen normalises text to NFC first. That is not in the file, and TikTokenConverter sets no normaliser. Plain
# text is equal, so a short comparison passes; e + U+0301 (as macOS file names and some PDFs have it) is two tokens
# instead of one, and the model has never seen them so.
# Versions: transformers 5.20.1, tiktoken 0.14.0, tokenizers 0.23.3, dashscope 1.27.8 (it carries Qwen's file and
# tokenizer). Seen 2026-11-28:
#
#   'Hello 12': converted [9707, 220, 16, 17], Qwen [9707, 220, 16, 17]
#   'caf\xe9': converted [924, 58858], Qwen [924, 58858]
#   'e\u0301': converted [68, 53839], Qwen [963]
#   with a normaliser of NFC: [963]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
unset PYTHONPATH
export CUDA_VISIBLE_DEVICES= HF_HUB_OFFLINE=1 HF_HOME="$work/hf" AXOLOTL_DO_NOT_TRACK=1
uv=uv
command -v uv >/dev/null || uv="python3 -m uv"
$uv venv -q --python 3.12 .venv
$uv pip install -q --python .venv transformers==5.20.1 tokenizers==0.23.3 tiktoken==0.14.0 dashscope==1.27.8
export TIKTOKEN_CACHE_DIR=
cat >check.py <<'END'
from pathlib import Path

import dashscope
from tokenizers import normalizers
from transformers.convert_slow_tokenizer import TikTokenConverter

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ranks = Path(dashscope.__file__).parent / "resources" / "qwen.tiktoken"
converted = TikTokenConverter(str(ranks), pattern=PATTERN).converted()
qwen = dashscope.get_tokenizer("qwen-turbo")
found = {}
for text in ("Hello 12", "caf\u00e9", "e\u0301"):
    found[text] = converted.encode(text).ids, qwen.encode(text)
    print(f"{text!a}: converted {found[text][0]}, Qwen {found[text][1]}")
assert converted.normalizer is None, "it changed"
assert all(ids == wanted for text, (ids, wanted) in found.items() if text != "e\u0301"), "it changed"
assert found["e\u0301"] == ([68, 53839], [963]), "it changed"
converted.normalizer = normalizers.NFC()
assert converted.encode("e\u0301").ids == [963]
print("with a normaliser of NFC:", converted.encode("e\u0301").ids)
END
.venv/bin/python check.py 2>log || { tail -n 20 log; exit 1; }
