#!/usr/bin/env bash
# The report in a browser (Debian's chromium, headless): at desk and phone width, light and dark. No error, no load from
# elsewhere, nothing wider than the window, videos that decode, values under the pointer, text that can be read.
. tests/launch/report_lib.sh

browser=$(command -v chromium || command -v chromium-browser)
[ "$browser" ] || { echo "no chromium here, the report was not looked at in a browser; 'make deps' installs it"; exit 77; }
"$VADER" train "$TMPDIR/tiny.yaml" run="$run" >"$out" 2>&1 || fail "train: status $?"
evaluate
report

# Its sockets need a shorter path than TMPDIR may have.
home=$(mktemp -d /tmp/vader-browser.XXXXXX)
trap 'rm -rf "$home"' EXIT

# A page of ours frames the report and looks into it: a window cannot be as narrow as a phone, a frame can.
cat >"$TMPDIR/look.html" <<'END'
<!DOCTYPE html>
<html><body style="margin:0"><iframe id="page"></iframe><pre id="found"></pre>
<script>
const want = new URLSearchParams(location.search), page = document.getElementById('page');
const width = Number(want.get('width')), dark = want.get('scheme') === 'dark';
document.documentElement.style.colorScheme = want.get('scheme');
page.style.cssText = 'border:0;height:6000px;width:' + width + 'px';
const found = [];
const check = function (good, what) { found.push((good ? 'ok ' : 'BAD ') + what); };
const light = function (colour) { // relative luminance, as WCAG has it
    const c = colour.match(/[\d.]+/g).slice(0, 3).map(function (x) {
        return x / 255 <= 0.03928 ? x / 255 / 12.92 : Math.pow((x / 255 + 0.055) / 1.055, 2.4);
    });
    return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
};
const contrast = function (a, b) { return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); };
const look = function (doc, win) {
    const all = function (s) { return Array.from(doc.querySelectorAll(s)); };
    const root = doc.documentElement, paper = light(win.getComputedStyle(doc.body).backgroundColor);
    check(root.clientWidth === width, 'width ' + root.clientWidth);
    check(root.scrollWidth <= width, 'nothing is wider than the window: ' + root.scrollWidth);
    all('body *').forEach(function (e) {
        const b = e.getBoundingClientRect();
        if (b.right > width + 1 || b.left < -1) check(false, e.tagName + ' ' + e.className + ' from ' + b.left + ' to ' + b.right);
    });
    check(dark ? paper < 0.05 : paper > 0.8, 'background ' + paper);
    ['p', 'small', 'figcaption', 'h2', 'th', 'td', '.y', '.sides .base', '.sides .tuned', '.caution b', 'button'].forEach(function (s) {
        const e = doc.querySelector(s), c = e ? contrast(light(win.getComputedStyle(e).color), paper) : 0;
        check(c >= 4.5, 'contrast of ' + s + ' ' + c.toFixed(1));
    });
    check(all('video').length === 2, all('video').length + ' videos');
    all('video').forEach(function (v) {
        const b = v.getBoundingClientRect();
        check(v.readyState >= 2 && v.videoWidth === 64 && v.videoHeight === 32 && v.error === null,
              'video: state ' + v.readyState + ', ' + v.videoWidth + ' x ' + v.videoHeight);
        check(v.muted && v.loop && v.autoplay && v.playsInline, 'video plays by itself, silently');
        check(b.width > 100 && Math.abs(b.width / b.height - 2) < 0.05, 'video is shown ' + b.width + ' x ' + b.height);
        check(v.poster.startsWith('data:image/png'), 'video has a first picture');
    });
    check(all('.controls button').length === 3, 'buttons for the videos');
    all('.plot').forEach(function (p) {
        const b = p.getBoundingClientRect();
        check(b.width > 150 && b.height > 80 && p.getAttribute('aria-label'), 'plot ' + b.width + ' x ' + b.height);
    });
    all('.plot[data-x]').forEach(function (p) {
        const b = p.getBoundingClientRect();
        if (!p.querySelector('path[data-name]')) return;
        p.dispatchEvent(new win.PointerEvent('pointermove', {clientX: b.left + b.width, clientY: b.top}));
        const tip = p.querySelector('.tip'), box = tip && tip.firstChild.getBoundingClientRect();
        check(tip && tip.textContent.startsWith('update 4\n'), 'value under the pointer: ' + (tip && tip.textContent));
        check(box && box.left >= 0 && box.right <= width, 'it lies within the window');
        p.dispatchEvent(new win.PointerEvent('pointerleave'));
        check(!p.querySelector('.tip'), 'it goes away');
    });
    check(all('.lanes rect').length > 10, 'timeline: ' + all('.lanes rect').length + ' pieces');
    const loaded = win.performance.getEntriesByType('resource').filter(function (r) { return !r.name.startsWith('data:'); });
    check(loaded.length === 0, loaded.length + ' loads from elsewhere');
    const xml = new XMLHttpRequest();
    xml.open('GET', page.src, false);
    xml.send();
    const parsed = new DOMParser().parseFromString(xml.responseText, 'application/xml');
    check(parsed.querySelector('parsererror') === null && parsed.querySelectorAll('section').length === 11, 'well-formed');
};
page.onload = function () {
    try {
        look(page.contentDocument, page.contentWindow);
        found.push('looked');
    } catch (e) {
        check(false, String(e));
    }
    document.getElementById('found').textContent = found.join('\n');
};
page.src = 'run/report.html';
</script></body></html>
END

for width in 1200 390; do
    for scheme in light dark; do
        TMPDIR=$home timeout 120 "$browser" --headless --no-sandbox --hide-scrollbars --disable-gpu --disable-dev-shm-usage --user-data-dir="$home/profile" \
            --allow-file-access-from-files --host-resolver-rules='MAP * ~NOTFOUND' --enable-logging=stderr \
            --blink-settings=preferredColorScheme=$([ $scheme = dark ] && echo 0 || echo 1) --window-size=1300,1000 \
            --virtual-time-budget=4000 --dump-dom "file://$TMPDIR/look.html?width=$width&scheme=$scheme" \
            >"$TMPDIR/dom" 2>"$TMPDIR/console"
        sed -n '/<pre id="found">/,/<\/pre>/p' "$TMPDIR/dom" | sed 's/<[^>]*>//g' >"$out"
        grep -qx looked "$out" || { tail -n 20 "$TMPDIR/console" >>"$out"; fail "$width, $scheme: the page could not be looked at"; }
        grep -q '^BAD' "$out" && fail "$width, $scheme"
        grep CONSOLE "$TMPDIR/console" >>"$out" && fail "$width, $scheme: messages of the page"
        echo "$width $scheme: $(grep -c '^ok' "$out") checks"
    done
done
