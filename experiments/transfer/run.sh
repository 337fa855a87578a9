#!/usr/bin/env bash
# The demo's backbone, which has heard synthetic songs only, probed on rendered pop: five tasks, the default study of each.
# Usage: experiments/transfer/run.sh CORPORA   (after `make demo`; half an hour on two cores)
set -euo pipefail
corpora=${1:?give the folder that holds the corpora}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$here/figures"
for task in chord beat tagging key tempo; do
  musictf probe backbone=runs/demo/pretrain task=$task dataset=manifest dataset.root="$corpora/pop909_rendered" \
    trainer=cpu output_dir=runs/transfer/$task
  python "$here/../keep.py" runs/transfer/$task "$here/$task"
  cp runs/transfer/$task/figures/layers_*.png "$here/figures/"
done
