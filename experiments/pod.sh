#!/usr/bin/env bash
# Trains an experiment on a slice of Cloud TPU VMs, with its folder in a bucket: docs/pods.md.
set -euo pipefail

usage() {
  cat >&2 <<'TEXT'
usage: experiments/pod.sh COMMAND NAME ZONE ...

  create  NAME ZONE TYPE      a slice of spot TPU VMs; TYPE such as v5litepod-16, v4-32
  install NAME ZONE BUCKET    this folder, its requirements and the bucket, on all workers
  train   NAME ZONE EXPERIMENT [OPTIONS]
                              starts `jaxrobust train EXPERIMENT OPTIONS` on all workers;
                              the run's folder is runs/NAME-OF-THE-EXPERIMENT in the bucket
  log     NAME ZONE           the last lines of worker 0
  stop    NAME ZONE           asks the run to save and end
  delete  NAME ZONE           gives the slice back

SPOT=0 creates VMs that are not preempted. DRY_RUN=1 prints the gcloud commands instead.
TEXT
  exit 2
}

run() {
  if [[ ${DRY_RUN:-0} == 1 ]]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

on() { # WORKERS SCRIPT: runs it there
  run gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker="$1" --command="$2"
}

software() { # what Cloud TPU calls the image for a type
  case $1 in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v4-*) echo tpu-ubuntu2204-base ;;
    *)
      echo "pod.sh: TYPE must begin with v4-, v5litepod-, v5p- or v6e-, got $1" >&2
      return 2
      ;;
  esac
}

create() {
  local version spot=(--spot)
  version=$(software "$1")
  [[ ${SPOT:-1} == 1 ]] || spot=()
  run gcloud compute tpus tpu-vm create "$name" --zone="$zone" --accelerator-type="$1" \
    --version="$version" --scopes=https://www.googleapis.com/auth/cloud-platform ${spot[@]+"${spot[@]}"}
}

# The images' Python is older than jaxrobust wants: uv brings one.
# Without a cache of metadata a worker sees at once what another has written.
INSTALL='set -eu
export PATH="$HOME/.local/bin:$PATH"
mkdir -p ~/jaxrobust ~/bucket
tar xzf ~/jaxrobust.tgz -C ~/jaxrobust
cd ~/jaxrobust
command -v uv >/dev/null || python3 -m pip install --user --quiet uv
[ -e .venv ] || uv venv --quiet --seed --python 3.12 .venv
.venv/bin/pip install --quiet -r requirements-tpu.txt
if ! command -v gcsfuse >/dev/null; then
  curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg |
    sudo tee /usr/share/keyrings/cloud.google.asc >/dev/null
  echo "deb [signed-by=/usr/share/keyrings/cloud.google.asc]" \
    "https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  sudo apt-get -q update
  sudo apt-get -qy install gcsfuse
fi
mountpoint -q ~/bucket || gcsfuse --metadata-cache-ttl-secs=0 \
  --metadata-cache-negative-ttl-secs=0 "$BUCKET" ~/bucket'

install() {
  local folder archive
  folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  archive=$(mktemp -d)/jaxrobust.tgz
  run tar czf "$archive" -C "$folder" --exclude='./.*' --exclude=__pycache__ \
    --exclude=./runs --exclude=./tests .
  run gcloud compute tpus tpu-vm scp "$archive" "$name:jaxrobust.tgz" --zone="$zone" --worker=all
  rm -rf "$(dirname "$archive")"
  on all "BUCKET=$(printf %q "${1#gs://}")"$'\n'"$INSTALL"
}

# A process goes on when the connection ends; its number is kept for `stop`.
START='set -eu
cd ~/jaxrobust
if [ -e train.pid ] && ps -o args= -p "$(cat train.pid)" | grep -q jaxrobust; then
  echo "pod.sh: a run is under way on $(hostname); stop it first" >&2; exit 1
fi
export TFDS_DATA_DIR="$HOME/bucket/data"
nohup .venv/bin/jaxrobust train --quiet --workdir "$HOME/bucket/runs/$RUN" "$@" \
  >train.log 2>&1 </dev/null &
echo $! >train.pid'

train() {
  local experiment
  experiment=$(basename "$1" .py)
  on all "RUN=$(printf %q "$experiment"); set -- $(printf '%q ' "$@")"$'\n'"$START"
}

[[ $# -ge 3 ]] || usage
command=$1 name=$2 zone=$3
shift 3
case $command-$# in
  create-1) create "$1" ;;
  install-1) install "$1" ;;
  train-0) usage ;;
  train-*) train "$@" ;;
  log-0) on 0 'tail -n 20 ~/jaxrobust/train.log; tail -qn 1 ~/bucket/runs/*/metrics.jsonl' ;;
  stop-0) on 0 'kill -TERM "$(cat ~/jaxrobust/train.pid)"' ;;
  delete-0) run gcloud compute tpus tpu-vm delete "$name" --zone="$zone" --quiet ;;
  *) usage ;;
esac
