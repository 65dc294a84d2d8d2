#!/usr/bin/env bash
# What a rented pod does, from its first second: set a limit to its own life, fetch the run from the Hub, set up, work,
# report to the Hub, end itself. It is the pod's start command; the machine that rented it may be gone.
#
# Environment: ELLE_RUN, ELLE_MARK (the rental's), ELLE_SECONDS (its life), ELLE_DATASET_REPO, HF_TOKEN; RUNPOD_POD_ID and
# RUNPOD_API_KEY (a key for this pod alone) are RunPod's. Secrets go to curl by its standard input: never in arguments,
# never in the log.
set -uo pipefail

missing='' # nothing below may fail for a variable: what fails here ends nothing
for name in ELLE_RUN ELLE_MARK ELLE_DATASET_REPO HF_TOKEN RUNPOD_POD_ID RUNPOD_API_KEY; do
  [[ ${!name:-} ]] || { missing+=" $name" && printf -v "$name" %s ''; }
done
[[ ${ELLE_SECONDS:-} =~ ^[1-9][0-9]{0,8}$ ]] || { missing+=' ELLE_SECONDS (whole seconds)' && ELLE_SECONDS=0; }

volume=${ELLE_VOLUME:-/workspace/data}
home=$volume/runs/$ELLE_RUN-$ELLE_MARK # of this rental alone: what an older one left on the volume never counts
rest=${RUNPOD_REST_URL:-https://api.runpod.io/v2}
hub=${HF_ENDPOINT:-https://huggingface.co}
tick=${ELLE_TICK:-5}
log=$home/log.txt
# Where the volume takes nothing, the work would not even begin: then it is done on the container's own disk.
if ! { mkdir -p "$home" && date -u >>"$log"; } 2>/dev/null; then
  volume=${HOME:-/tmp}/elle home=${HOME:-/tmp}/elle/runs/$ELLE_RUN-$ELLE_MARK
  log=$home/log.txt
  mkdir -p "$home"
  echo 'the volume cannot be written: the disk of the container is used' >>"$log"
fi
export ELLE_VOLUME=$volume ELLE_RUNS=$volume/runs HF_HOME=${HF_HOME:-$volume/huggingface} ELLE_HOME=$home

exec 3>&1
say() { echo "$(date -u +%H:%M:%S) $*" | tee -a "$log" >&3; }

call() { # TOKEN CURL_OPTION...: the token by standard input
  curl -sS --config <(printf 'header = "Authorization: Bearer %s"\n' "$1") --max-time 60 "${@:2}"
}

now() { # seconds since the machine started: whoever sets its clock does not change it
  local up
  read -r up _ </proc/uptime && echo "${up%.*}"
}

# The life began when the pod first did: a container that is started again does not get a second one. After a new start
# of the machine, whose seconds begin anew, it has what was left.
seconds=$ELLE_SECONDS
if [[ $(cat "$home/life" 2>/dev/null) =~ ^([0-9]+)\ (-?[0-9]+)$ ]]; then
  seconds=$((BASH_REMATCH[1] - $(now)))
  ((seconds <= BASH_REMATCH[2])) || seconds=${BASH_REMATCH[2]}
fi
deadline=$(($(now) + seconds))

left() { echo $((deadline - $(now))); } # seconds of its life; below 0 when it is over

terminate() { # until it is done, for nothing else ends the costs; where it may not, the container ends
  local wait=1 refused=0 code
  while [[ $RUNPOD_POD_ID && $RUNPOD_API_KEY ]] && ((refused < 5)); do
    code=$(call "$RUNPOD_API_KEY" -X DELETE -o /dev/null -w '%{http_code}' "$rest/pods/$RUNPOD_POD_ID" 2>/dev/null)
    case $code in
      2?? | 404) return ;;
      401 | 403)
        refused=$((refused + 1))
        command -v runpodctl >/dev/null && runpodctl remove pod "$RUNPOD_POD_ID" && return
        ;;
    esac
    sleep "${ELLE_PAUSE:-$wait}"
    wait=$((wait < 60 ? wait * 2 : 60))
  done
  say 'RunPod does not let this pod end itself: its container ends; elle pod down ends the pod'
}

report() { # STATE REASON: the result and the log's end into the rental's folder on the Hub, in one commit
  local text result wait=1 inside=runs/$ELLE_RUN/$ELLE_MARK body=$home/report.$BASHPID
  [[ -s $home/result.json ]] || printf '{"state": "%s", "reason": "%s"}\n' "$1" "${2:-}" >"$home/result.json"
  text=$(tail -c 200000 "$log")
  text=${text//"$HF_TOKEN"/\$HF_TOKEN}
  text=${text//"$RUNPOD_API_KEY"/\$RUNPOD_API_KEY}
  encoded() { base64 -w 0; }
  result=$(encoded <"$home/result.json")
  {
    printf '{"key":"header","value":{"summary":"%s: %s"}}\n' "$ELLE_RUN" "$1"
    printf '{"key":"file","value":{"path":"%s/result.json","encoding":"base64","content":"%s"}}\n' "$inside" "$result"
    printf '{"key":"file","value":{"path":"%s/log.txt","encoding":"base64","content":"%s"}}\n' \
      "$inside" "$(encoded <<<"$text")"
  } >"$body"
  until call "$HF_TOKEN" -f -o /dev/null -H 'Content-Type: application/x-ndjson' --data-binary "@$body" \
    "$hub/api/datasets/$ELLE_DATASET_REPO/commit/main"; do
    # A success is told as long as the pod may live: without it nobody counts the weights.
    if ((wait > 16)) && [[ $1 != succeeded || $(left) -lt 60 ]]; then
      say 'the result could not be reported; it is lost with this pod'
      return
    fi
    sleep "${ELLE_PAUSE:-$wait}"
    wait=$((wait < 60 ? wait * 2 : 60))
  done
}

guard() { # ends the pod where the script is gone, and, later than it would, where it hangs
  trap '' TERM HUP INT
  while kill -0 $$ && (($(now) < deadline + 120)); do sleep "$tick"; done
  kill -0 $$ || report failed 'the script on the pod was killed'
  terminate
}

stages() {
  local code=$home/elle wait
  guard >/dev/null 2>&1 & # a second one, in another process group: they are not killed together
  if [[ ! -f $code/pyproject.toml ]]; then
    say 'fetching the run'
    for wait in 1 2 4 8 16 0; do
      call "$HF_TOKEN" -fL --max-time 600 -o "$home/elle.tar.gz" \
        "$hub/datasets/$ELLE_DATASET_REPO/resolve/main/runs/$ELLE_RUN/elle.tar.gz" && break
      ((wait)) || return 10
      sleep "${ELLE_PAUSE:-$wait}"
    done
    rm -rf "$code.new" && mkdir -p "$code.new" && tar -xzf "$home/elle.tar.gz" -C "$code.new" || return 10
    mv "$code.new" "$code" || return 10
  fi
  cd "$code" || return 10
  say 'setting up'
  ${ELLE_SETUP:-requirements/setup.sh pod} || return 11
  say 'working'
  ELLE_LEFT=$(left) ${ELLE_WORK:-.venv/bin/python -m renting.on_pod}
}

apart() { # COMMAND...: in the background, in a process group of its own, to be ended as one
  set -m
  "$@" &
  set +m
}

watched() {
  apart guard >/dev/null 2>&1
  timer=$!
  disown "$timer" # nothing need be said of its end
}

watched
state=succeeded reason=''
if [[ $missing ]]; then
  state=failed reason="not set on the pod:$missing"
elif [[ ! -s $home/result.json ]]; then # else it was done before the container was started again
  apart stages >>"$log" 2>&1
  work=$!
  while kill -0 "$work" 2>/dev/null; do
    if (($(left) <= 0)); then
      state=expired reason='its limit of time was reached before it was done'
      kill -KILL -- "-$work" 2>/dev/null
      break
    fi
    # For a container that is started again; renamed, for half a number would be another life.
    echo "$deadline $(left)" >"$home/life.new" && mv "$home/life.new" "$home/life"
    kill -0 "$timer" 2>/dev/null || watched
    sleep "$tick"
  done
  wait "$work"
  code=$?
  kill -KILL -- "-$work" 2>/dev/null # its guard, and what it left
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
kill -KILL -- "-$timer" 2>/dev/null # only here, where the pod is gone or nothing can end it
