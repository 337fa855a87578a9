#!/usr/bin/env bash
# The demo's backbone, which has heard synthetic songs only, probed for chords on rendered pop.
# Usage: experiments/transfer/run.sh CORPORA   (after `make demo`)
set -euo pipefail
corpora=${1:?give the folder that holds the corpora}
here=$(cd "$(dirname "$0")" && pwd)
musictf probe backbone=runs/demo/pretrain task=chord dataset=manifest dataset.root="$corpora/pop909_rendered" \
  trainer=cpu output_dir=runs/transfer/chord
mkdir -p "$here/chord" "$here/figures"
cp runs/transfer/chord/{results.jsonl,per_track.csv} "$here/chord/"
cp runs/transfer/chord/figures/*.png "$here/figures/"
