#!/bin/bash
# Contract 1 for every way to decode, to reward and to step: one process against many slow ones.
. tests/pipeline/lib.sh

train ref --inline
world vjepa video.segments=2 reward.0.model=vjepa reward.0.path=tests/data/tiny-vjepa reward.0.form=score
world aesthetic reward.0.model=aesthetic reward.0.path=tests/data/tiny-aesthetic/clip \
    reward.0.head=tests/data/tiny-aesthetic/head reward.0.form=score
world sum reward.1.model=vjepa reward.1.path=tests/data/tiny-vjepa reward.1.form=score reward.1.weight=0.5 vjepa.masks=fixed
world picture video.segments=2 reward.1.model=first_frame reward.1.form=score reward.1.weight=20
world pictures video.segments=3 video.seam=drop_first decode.grad_frames=alt reward.1.model=first_frame reward.1.form=score
world frames decode.grad_frames="window 2" video.segments=2
world alternate decode.grad_frames=alt
world chunks decode.chunk=2
train keep.many --fault delay:5:4000 slots=5 decode.keep=3 decode.chunk=2 && same keep.many chunks
world seams video.segments=2 video.seam=drop_first
world fading optim.warmup=2 optim.half_life=1
rates=$(grep -o '"lr": [0-9.]*' "$TMPDIR/fading/metrics.jsonl" | cut -c 7-12 | tr '\n' ' ')
[ "$rates" = "0.0050 0.0050 0.0025 " ] || fail "rates that warm up and halve: $rates"
world epoch data.order=epoch seed=5
finish
