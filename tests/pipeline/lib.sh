# Functions for tests of whole runs: started, hurt, compared. Sourced from the root of the tree by
# tests/pipeline/test_*.sh, which need VADER and TMPDIR as tests/run sets them.
#
#     . tests/pipeline/lib.sh
#     train ref slots=1                    # run directory $TMPDIR/ref, output $TMPDIR/ref.log
#     train two stages.sampler.replicas=2
#     same two ref                         # metrics.jsonl and both state files, byte for byte
#     finish                               # nothing may be left behind; exit status
set -u
VADER=${VADER:-build/cpu-release/vader}
TMPDIR=${TMPDIR:-$(mktemp -d)}
CONF=tests/pipeline/tiny.yaml
failed=0
runs=0

fail() {
    echo "FAIL: $*"
    failed=$((failed + 1))
}

# train NAME [words and options ...]: a run that must succeed. CONF is the config.
train() {
    local name=$1
    shift
    runs=$((runs + 1))
    rm -rf "${TMPDIR:?}/$name"
    "$VADER" train "$CONF" run="$TMPDIR/$name" "$@" >"$TMPDIR/$name.log" 2>&1 ||
        { fail "$name: train $* ended with status $?"; tail -n 5 "$TMPDIR/$name.log"; }
}

resume() { # NAME [words ...]
    local name=$1
    shift
    "$VADER" resume "$TMPDIR/$name" "$@" >>"$TMPDIR/$name.log" 2>&1 ||
        { fail "$name: resume $* ended with status $?"; tail -n 5 "$TMPDIR/$name.log"; }
}

# same NAME REFERENCE: the files that contract 1 names.
same() {
    local f
    for f in metrics.jsonl state-0 state-1; do
        cmp -s "$TMPDIR/$1/$f" "$TMPDIR/$2/$f" || { fail "$1/$f differs from $2/$f"; return; }
    done
    rm -rf "${TMPDIR:?}/$1"
}

differ() { # NAME OTHER: a setting that should change numbers does
    cmp -s "$TMPDIR/$1/metrics.jsonl" "$TMPDIR/$2/metrics.jsonl" && fail "$1 and $2 have the same metrics"
}

# One kind of mathematics: in one process, and in many slow ones. $TMPDIR/ref is the run that it must differ from.
world() { # name, words ...
    local name=$1
    shift
    train "$name" --inline "$@"
    train "$name.many" --fault delay:5:4000 slots=5 stages.{sampler,decoder}.replicas=2 "$@"
    same "$name.many" "$name"
    differ "$name" ref
}

# refused STATUS TEXT [words ...]: a run that must fail so, and say so. Its output is in $TMPDIR/refused.log.
refused() {
    local status=$1 text=$2 got
    shift 2
    rm -rf "${TMPDIR:?}/refused"
    "$VADER" train "$CONF" run="$TMPDIR/refused" "$@" >"$TMPDIR/refused.log" 2>&1
    got=$?
    [ $got = "$status" ] || fail "train $*: status $got, want $status"
    grep -qF -- "$text" "$TMPDIR/refused.log" ||
        { fail "train $*: want \"$text\" in:"; tail -n 5 "$TMPDIR/refused.log"; }
    nothing_left
}

# start NAME [words ...]: in the background; its process is $launcher.
start() {
    local name=$1
    shift
    rm -rf "${TMPDIR:?}/$name"
    "$VADER" train "$CONF" run="$TMPDIR/$name" "$@" >"$TMPDIR/$name.log" 2>&1 &
    launcher=$!
}

# Processes of ours whose working directory lies below TMPDIR, one pid a line; of a stage only those that run it, not
# those that are asked before the run what they will need.
processes() { # [sampler | decoder | rewarder | learner]
    local p name
    for p in $(find /proc/[0-9]* -maxdepth 1 -name cwd -lname "$TMPDIR/*" 2>/dev/null); do
        p=${p%/cwd}
        read -r name 2>/dev/null <"$p/comm" || continue
        [ "${1:-}" ] && grep -qz -- '^--plan$' "$p/cmdline" 2>/dev/null && continue
        case $name in vader-"${1:-}"*) echo "${p#/proc/}" ;; esac
    done
}

# until_true SECONDS command ...: polls it.
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.02
    done
}

has_updates() { # NAME N
    [ "$(wc -l 2>/dev/null <"$TMPDIR/$1/metrics.jsonl")" -ge "$2" ] 2>/dev/null
}

alive() { [ -n "$(processes "$1")" ]; } # STAGE

gone() { [ -z "$(processes)" ]; }

# No process, shared memory or socket of ours is there any more.
nothing_left() {
    until_true 20 gone || fail "processes are left: $(processes | tr '\n' ' ')"
    ls /dev/shm 2>/dev/null | grep '^vader-' | while read -r f; do
        [ -d "/proc/$(echo "$f" | cut -d- -f2)" ] || echo "$f"
    done | grep . && fail "shared memory is left in /dev/shm"
    [ -z "$(find "$TMPDIR" -type s -print -quit)" ] || fail "sockets are left: $(find "$TMPDIR" -type s)"
}

finish() {
    nothing_left
    echo "$runs runs, $failed failures"
    [ $failed = 0 ]
    exit
}
