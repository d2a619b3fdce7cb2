#!/usr/bin/env bash
# The report of a real run: while it goes on, after it was killed, when it has ended; and its commands, run as they stand.
. tests/launch/report_lib.sh

"$VADER" train "$TMPDIR/tiny.yaml" run="$run" --fault delay:1:100000 >"$TMPDIR/log" 2>&1 &
launcher=$!
for _ in $(seq 300); do
    [ -s "$run/metrics.jsonl" ] && break
    sleep 0.1
done
report
has "going on, "
kill -9 $launcher
wait $launcher 2>/dev/null
for _ in $(seq 100); do
    report
    grep -qF "stopped before its end, " "$run/report.html" && break
    sleep 0.1
done
has "stopped before its end, "
"$VADER" resume "$run" >"$out" 2>&1 || fail "resume: status $?"
report
has "finished, 4 of 4 updates"
has "after 4 updates"
[ "$(grep -o '<video ' "$run/report.html" | wc -l)" = 2 ] || fail "want two previews"
[ "$(grep -o 'poster="data:image/png;base64,' "$run/report.html" | wc -l)" = 2 ] || fail "want two posters"
has "Not measured yet: <code>vader eval"
evaluate
report
has "motion fell to 33 % of the base"
has "dawn.png, seed 1"
lacks "Not measured yet"

# The commands that the page gives do what it says: out of an empty folder, with the picture that they name.
page_commands() { # one line each
    sed -n '/<section id="use">/,$p' "$run/report.html" | tr '\n' ' ' | grep -o '<code>vader [^<]*</code>' |
        sed -e 's/<[^>]*>//g' -e 's/\\  */ /g' -e 's/&quot;/"/g' -e "s/&#39;/'/g" -e 's/&lt;/</g' -e 's/&gt;/>/g' -e 's/&amp;/\&/g'
}
mkdir "$TMPDIR/bin" "$TMPDIR/use"
ln -s "$VADER" "$TMPDIR/bin/vader"
cp tests/data/pictures/tiles.png "$TMPDIR/use/photo.png"
[ "$(page_commands | wc -l)" = 3 ] || fail "want three commands: $(page_commands)"
page_commands >"$TMPDIR/commands"
(cd "$TMPDIR/use" && PATH=$TMPDIR/bin:$PATH bash -e "$TMPDIR/commands") >"$out" 2>&1 || fail "the page's commands: $(cat "$TMPDIR/commands")"
for f in run-adapter/adapter_model.safetensors photo.mp4 pytorch_lora_weights.safetensors; do
    [ -s "$TMPDIR/use/$f" ] || fail "the page's commands did not make $f"
done

for word in "" --hepl "a b"; do
    "$VADER" report $word >"$out" 2>&1
    [ $? = 2 ] || fail "report $word: want status 2"
done
echo "report: ok"
