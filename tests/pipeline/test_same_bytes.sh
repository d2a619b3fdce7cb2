#!/bin/bash
# Contract 1: the same bytes for any number of slots and processes, any timing, and for one process.
. tests/pipeline/lib.sh

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
finish
