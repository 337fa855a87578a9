#!/usr/bin/env bash
# What emerges in the demo's backbone, on rendered pop it has never heard.
# Usage: experiments/emergence/run.sh CORPORA   (after `make demo`; less than ten minutes on two cores)
set -euo pipefail
corpora=${1:?give the folder that holds the corpora}
here=$(cd "$(dirname "$0")" && pwd)
musictf inspect backbone=runs/demo/pretrain dataset=manifest dataset.root="$corpora/pop909_rendered" \
  output_dir=runs/emergence
python "$here/../keep.py" runs/emergence "$here/pop909"
cp runs/emergence/inspection.md "$here/pop909/"
mkdir -p "$here/pop909/figures"
for picture in attention attention_curves profile position tokens_chord_root; do
  cp runs/emergence/figures/$picture.png "$here/pop909/figures/"
done
