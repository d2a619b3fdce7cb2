#!/bin/bash
# Contract 2, stages: kill -9 before, after or just after the publication of any step changes no byte.
#
# Each run below kills several processes once each, at the places that --fault names; with SOAK=1 there is also
# one run for every place of every sample, of both hand-overs.
. tests/pipeline/lib.sh

phases="before after commit"
shape="video.segments=2 optim.updates=2 slots=3"
ahead="$shape video.handover=sampler optim.lag=1"
decoder="encode.0 encode.1 handover.0 decode.0 decode.1 pull.1 pull.0"
learner="denoise.0 denoise.1 learn.1 learn.0 update"

killed() { # reference, deaths, fault, words ...
    local ref=$1 deaths=$2 fault=$3
    shift 3
    train run "$@" --fault "$fault"
    local counted="$deaths"
    # Who dies just after publishing the last update may not be missed: the run is over.
    case $fault in *update@1:commit*) counted="\($deaths\|$((deaths - 1))\)" ;; esac
    grep -q "restarts $counted\$" "$TMPDIR/run.log" || { [ "$deaths" = 1 ] && [ "$counted" != 1 ] && ! grep -q restarts "$TMPDIR/run.log"; } ||
        fail "$fault: want $deaths restarts: $(grep -o 'restarts.*' "$TMPDIR/run.log" | tail -n 1)"
    same run "$ref"
    nothing_left
}

train ref --inline $shape
train ref_ahead --inline $ahead

if [ "${SOAK:-}" ]; then
    for world in ref ref_ahead; do
        [ $world = ref ] && words=$shape || words=$ahead
        for step in $decoder $learner sample.0 sample.1 score; do
            for phase in $phases; do
                for sample in 0 1 2 3; do
                    [ $step = update ] && [ $sample -gt 1 ] && continue
                    killed $world 1 "kill:$step@$sample:$phase" $words
                done
            done
        done
    done
fi

# All places of one sample, one death per process in each run; samples take turns.
turn=0
for phase in $phases; do
    for step in $decoder; do
        list=($learner)
        other=${list[$((turn % 5))]}
        [ $other = update ] && at=$((turn % 2)) || at=$((turn % 4))
        fault="kill:$step@$((turn % 4)):$phase,kill:$other@$at:$phase"
        fault+=",kill:sample.$((turn % 2))@$(((turn + 1) % 4)):$phase,kill:score@$(((turn + 2) % 4)):$phase"
        if [ $((turn % 2)) = 0 ]; then
            killed ref 4 "$fault" $shape
        else
            killed ref_ahead 4 "$fault" $ahead
        fi
        turn=$((turn + 1))
    done
done

# Replicas: the survivor of a stage goes on.
killed ref 1 "kill:sample.0@1:after" $shape stages.sampler.replicas=2
killed ref 1 "kill:decode.1@2:commit" $shape stages.decoder.replicas=2

# While messages are lost, too: what the launcher asks and what it is told come again.
killed ref 3 "kill:score@1:after,kill:learn.0@3:before,kill:sample.1@2:commit,messages:300:200:300" $shape

# From outside, at moments of their own, while everything is slow.
start outside $shape optim.updates=6 --fault delay:4:4000
for stage in sampler decoder rewarder learner sampler learner; do
    sleep 0.4
    p=$(processes $stage | head -n 1)
    [ "$p" ] && kill -9 "$p" 2>/dev/null
done
wait $launcher || fail "killed from outside: status $?"
train ref6 --inline $shape optim.updates=6
same outside ref6

# Before any stage is there, while it is planned what each needs: who is killed then is asked again.
mkdir "$TMPDIR/bin"
cp "$VADER" "$VADER"-* "$TMPDIR/bin"
mv "$TMPDIR/bin/vader-sampler" "$TMPDIR/bin/vader-sampler-itself"
cat >"$TMPDIR/bin/vader-sampler" <<'EOF'
#!/bin/sh
here=$(dirname "$0")
[ "$1" = --plan ] && mkdir "$here/killed" 2>/dev/null && kill -9 $$
exec "$here/vader-sampler-itself" "$@"
EOF
chmod +x "$TMPDIR/bin/vader-sampler"
VADER=$TMPDIR/bin/vader train planned $shape
grep -q "sampler died of signal 9 (Killed) while it planned; asked again" "$TMPDIR/planned.log" || fail "no planning sampler was killed"
same planned ref

# Stopped for a while (10 s with SOAK=1): waited for, no restart.
while_s=0.5
[ "${SOAK:-}" ] && while_s=10
start stopped $shape optim.updates=6 --fault delay:5:20000
for stage in sampler learner decoder rewarder; do
    until_true 20 alive $stage || fail "no $stage to stop"
    sleep 0.2
    p=$(processes $stage | head -n 1)
    [ "$p" ] && kill -STOP "$p" && sleep $while_s && kill -CONT "$p" || fail "$stage could not be stopped"
done
wait $launcher || fail "stopped: status $?"
grep -q restarts "$TMPDIR/stopped.log" && fail "a stopped stage was restarted"
same stopped ref6

# One is stopped while another dies: the group waits for it, then goes on.
start both $shape optim.updates=6 --fault delay:6:20000
until_true 60 has_updates both 1 || fail "no first update"
stopped=$(processes decoder | head -n 1) died=$(processes sampler | head -n 1)
kill -STOP "$stopped" && kill -9 "$died" && sleep $while_s && kill -CONT "$stopped" || fail "no decoder or sampler"
wait $launcher || fail "stopped and died: status $?"
grep -q "restarts 1$" "$TMPDIR/both.log" || fail "stopped and died: want 1 restart"
same both ref6
finish
