#!/bin/bash
# Contract 1: the same bytes for any number of slots and processes, any timing, and for one process.
. tests/pipeline/lib.sh

# Every setting of how it is carried out, over one world.
train ref --inline
train slots1 slots=1 && same slots1 ref
train slots2 slots=2 && same slots2 ref
train slots5 slots=5 && same slots5 ref
train samplers stages.sampler.replicas=2 && same samplers ref
train decoders stages.decoder.replicas=2 && same decoders ref
train rewarders stages.rewarder.replicas=2 && same rewarders ref
train slow1 --fault delay:1:3000 && same slow1 ref
train slow2 --fault delay:2:30000 slots=3 && same slow2 ref
train bells1 --fault bells:500:100:200 && same bells1 ref
train bells2 --fault bells:0:500:500 && same bells2 ref
train silent --fault bells:1000:0:0 && same silent ref # every bell is lost
train lossy1 --fault messages:300:200:300 && same lossy1 ref
train lossy2 --fault messages:500:400:50 slots=3 stages.decoder.replicas=2 && same lossy2 ref
train everything --fault "delay:3:5000,bells:200:200:200" slots=7 stages.{sampler,decoder,rewarder}.replicas=2 &&
    same everything ref
train inline_slots --inline slots=5 && same inline_slots ref
train previews preview.every=2
[ "$(find "$TMPDIR/previews/previews" -name 'step-*.mp4' | wc -l)" = 6 ] || fail "not two previews of versions 0, 2 and 3"
same previews ref

# Every kind of mathematics: one process against many slow ones.
world() { # name, words ...
    local name=$1
    shift
    train "$name" --inline "$@"
    train "$name.many" --fault delay:5:4000 slots=5 stages.{sampler,decoder}.replicas=2 "$@"
    same "$name.many" "$name"
    differ "$name" ref
}
world lag1 optim.lag=1
world lag2 optim.lag=2 optim.updates=4
world segments3 video.segments=3
world segments3_lag1 video.segments=3 optim.lag=1
world handover video.segments=3 video.handover=sampler optim.lag=1
world handover_lag2 video.segments=2 video.handover=sampler optim.lag=2 optim.updates=4
world last window.at=last
world gain window.at=gain window.steps=2
world index0 window.at=0 window.steps=2
world to_end window.at=0 window.steps=to_end
world random window.at=random "window.range=[0, 2]"
world predict window.finish=predict
world detached window.at=0 window.steps=3 window.detach_input=true
world guided guidance.max=3
world dropout lora.dropout=0.2
world dropout_window lora.dropout=0.2 window.at=0 window.steps=3
world vjepa video.segments=2 reward.0.model=vjepa reward.0.path=tests/data/tiny-vjepa reward.0.form=score
world aesthetic reward.0.model=aesthetic reward.0.path=tests/data/tiny-aesthetic/clip \
    reward.0.head=tests/data/tiny-aesthetic/head reward.0.form=score
world sum reward.1.model=vjepa reward.1.path=tests/data/tiny-vjepa reward.1.form=score reward.1.weight=0.5 vjepa.masks=fixed
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
