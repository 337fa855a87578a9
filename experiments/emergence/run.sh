#!/usr/bin/env bash
# What emerges in the demo's backbone, on rendered pop it has never heard and on synthetic songs whose onsets and sections
# are exactly known. Usage: experiments/emergence/run.sh CORPORA   (after `make demo`; about fifteen minutes on two cores)
set -euo pipefail
corpora=${1:?give the folder that holds the corpora}
here=$(cd "$(dirname "$0")" && pwd)
musictf inspect backbone=runs/demo/pretrain dataset=manifest dataset.root="$corpora/pop909_rendered" \
  output_dir=runs/emergence/pop909
musictf inspect backbone=runs/demo/pretrain dataset.num_tracks=200 dataset.seconds=24 dataset.reinstrument=true \
  output_dir=runs/emergence/synthetic
for corpus in pop909 synthetic; do
  python "$here/../keep.py" runs/emergence/$corpus "$here/$corpus"
  cp runs/emergence/$corpus/inspection.md "$here/$corpus/"
  mkdir -p "$here/$corpus/figures"
  for picture in attention attention_curves profile position tokens_chord_root; do
    cp runs/emergence/$corpus/figures/$picture.png "$here/$corpus/figures/"
  done
done
