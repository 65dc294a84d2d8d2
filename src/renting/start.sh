#!/usr/bin/env bash
# What a rented pod does, from its first second: set a limit to its own life, fetch the run from the Hub, set up, work,
# report to the Hub, end itself. It is the pod's start command; the machine that rented it may be gone.
#
# Environment: ELLE_RUN, ELLE_SECONDS (its life), ELLE_DATASET_REPO, HF_TOKEN; RUNPOD_POD_ID and RUNPOD_API_KEY (a key
# for this pod alone) are RunPod's. Secrets go to curl by its standard input: never in arguments, never in the log.
set -uo pipefail

volume=${ELLE_VOLUME:-/workspace/data}
home=$volume/runs/$ELLE_RUN
rest=${RUNPOD_REST_URL:-https://api.runpod.io/v2}
hub=${HF_ENDPOINT:-https://huggingface.co}
tick=${ELLE_TICK:-5}
export ELLE_VOLUME=$volume ELLE_RUNS=$volume/runs HF_HOME=${HF_HOME:-$volume/huggingface} ELLE_HOME=$home
mkdir -p "$home"
log=$home/log.txt

exec 3>&1
say() { echo "$(date -u +%H:%M:%S) $*" | tee -a "$log" >&3; }

call() { # TOKEN CURL_OPTION...: the token by standard input
  curl -sS --config <(printf 'header = "Authorization: Bearer %s"\n' "$1") --max-time 60 "${@:2}"
}

# The life began when the pod first did: a container that is started again does not get a second one.
[[ -s $home/deadline ]] || echo $(($(date +%s) + ELLE_SECONDS)) >"$home/deadline"
deadline=$(<"$home/deadline")

terminate() { # until it is done: nothing else ends the costs
  local wait=1 code
  while :; do
    code=$(call "$RUNPOD_API_KEY" -X DELETE -o /dev/null -w '%{http_code}' "$rest/pods/$RUNPOD_POD_ID" 2>/dev/null)
    case $code in
      2?? | 404) exit 0 ;;
      401 | 403) command -v runpodctl >/dev/null && runpodctl remove pod "$RUNPOD_POD_ID" && exit 0 ;;
    esac
    sleep "${ELLE_PAUSE:-$wait}"
    wait=$((wait < 60 ? wait * 2 : 60))
  done
}

report() { # STATE: the result and the log's end into the run's folder on the Hub, in one commit; a few tries
  local text result wait
  [[ -s $home/result.json ]] || printf '{"state": "%s", "reason": "%s"}\n' "$1" "${2:-}" >"$home/result.json"
  text=$(tail -c 200000 "$log")
  text=${text//"$HF_TOKEN"/\$HF_TOKEN}
  text=${text//"$RUNPOD_API_KEY"/\$RUNPOD_API_KEY}
  encoded() { base64 -w 0; }
  result=$(encoded <"$home/result.json")
  {
    printf '{"key":"header","value":{"summary":"%s: %s"}}\n' "$ELLE_RUN" "$1"
    printf '{"key":"file","value":{"path":"runs/%s/result.json","encoding":"base64","content":"%s"}}\n' \
      "$ELLE_RUN" "$result"
    printf '{"key":"file","value":{"path":"runs/%s/log.txt","encoding":"base64","content":"%s"}}\n' \
      "$ELLE_RUN" "$(encoded <<<"$text")"
  } >"$home/report.ndjson"
  for wait in 1 2 4 8 16; do
    call "$HF_TOKEN" -f -o /dev/null -H 'Content-Type: application/x-ndjson' --data-binary "@$home/report.ndjson" \
      "$hub/api/datasets/$ELLE_DATASET_REPO/commit/main" && return
    sleep "${ELLE_PAUSE:-$wait}"
  done
  say 'the result could not be reported; it is lost with this pod'
}

stages() {
  local code=$volume/elle wait
  if [[ ! -f $code/pyproject.toml ]]; then
    say 'fetching the run'
    mkdir -p "$code"
    for wait in 1 2 4 8 16 0; do
      call "$HF_TOKEN" -fL --max-time 600 -o "$home/elle.tar.gz" \
        "$hub/datasets/$ELLE_DATASET_REPO/resolve/main/runs/$ELLE_RUN/elle.tar.gz" && break
      ((wait)) || return 10
      sleep "${ELLE_PAUSE:-$wait}"
    done
    tar -xzf "$home/elle.tar.gz" -C "$code" || return 10
  fi
  cd "$code" || return 10
  say 'setting up'
  ${ELLE_SETUP:-requirements/setup.sh pod} || return 11
  say 'working'
  ${ELLE_WORK:-.venv/bin/python -m renting.on_pod}
}

# If this shell dies, this one ends the pod, later.
(
  trap '' TERM
  while (($(date +%s) < deadline + 120)); do sleep "$tick"; done
  terminate
) >/dev/null 2>&1 &
timer=$!
trap 'kill -KILL "$timer" 2>/dev/null' EXIT # only where this shell comes to its own end: the pod is gone

state=succeeded reason=''
if [[ ! -s $home/result.json ]]; then # else it was done before the container was started again
  set -m                              # the stages are a process group of their own, to be ended as one
  stages >>"$log" 2>&1 &
  work=$!
  set +m
  while kill -0 "$work" 2>/dev/null; do
    if (($(date +%s) >= deadline)); then
      state=expired reason='its limit of time was reached before it was done'
      kill -TERM -- "-$work" 2>/dev/null
      for _ in $(seq 60); do kill -0 -- "-$work" 2>/dev/null && sleep 0.5; done
      kill -KILL -- "-$work" 2>/dev/null
      rm -f "$home/result.json"
      break
    fi
    sleep "$tick"
  done
  wait "$work"
  code=$?
  if [[ $state == succeeded && $code -ne 0 ]]; then
    state=failed
    case $code in
      10) reason='the run could not be fetched from the Hub' ;;
      11) reason='the packages could not be installed' ;;
      *) reason="the work ended with code $code" ;;
    esac
  fi
fi
say "ending: $state $reason"
report "$state" "$reason"
terminate
