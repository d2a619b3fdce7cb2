#!/bin/bash
# Contract 1 for every way to roll out and to pull back: one process against many slow ones.
. tests/pipeline/lib.sh

train ref --inline
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
finish
