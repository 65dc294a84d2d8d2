#!/usr/bin/env bash
# tiktoken: a local file of ranks that has changed is not read again.
#
# One would guess: load_tiktoken_bpe("my.tiktoken") reads my.tiktoken; a cache is for what is downloaded.
# What happens: a local file is copied into the cache as well, under the hash of its path alone, and all later loads of
# that path read the copy: in other processes too, and after the file has changed or is deleted. TIKTOKEN_CACHE_DIR=""
# or expected_hash avoids it. transformers' TikTokenConverter reads its file through this.
# Versions: tiktoken 0.14.0. Seen 2026-11-28:
#
#   loaded:               {b'a': 0, b'b': 1}
#   after it changed:     {b'a': 0, b'b': 1}
#   the same, no cache:   {b'b': 0, b'a': 1, b'ab': 2}
#   after it was deleted: {b'a': 0, b'b': 1}
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
unset PYTHONPATH
export CUDA_VISIBLE_DEVICES= HF_HUB_OFFLINE=1 HF_HOME="$work/hf" AXOLOTL_DO_NOT_TRACK=1
uv=uv
command -v uv >/dev/null || uv="python3 -m uv"
$uv venv -q --python 3.12 .venv
$uv pip install -q --python .venv tiktoken==0.14.0
export TIKTOKEN_CACHE_DIR="$work/cache"
cat >load.py <<'END'
from tiktoken.load import load_tiktoken_bpe

print(load_tiktoken_bpe("my.tiktoken"))
END
printf 'YQ== 0\nYg== 1\n' >my.tiktoken # a, b
first=$(.venv/bin/python load.py)
printf 'Yg== 0\nYQ== 1\nYWI= 2\n' >my.tiktoken # b, a, ab
second=$(.venv/bin/python load.py)
uncached=$(TIKTOKEN_CACHE_DIR='' .venv/bin/python load.py)
rm my.tiktoken
gone=$(.venv/bin/python load.py)
echo "loaded:               $first"
echo "after it changed:     $second"
echo "the same, no cache:   $uncached"
echo "after it was deleted: $gone"
[ "$first" = "{b'a': 0, b'b': 1}" ] && [ "$second" = "$first" ] && [ "$gone" = "$first" ] &&
    [ "$uncached" = "{b'b': 0, b'a': 1, b'ab': 2}" ] || { echo "it changed"; exit 1; }
