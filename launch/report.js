// The page of `vader report` is whole without this. It adds: all videos in step, one set of buttons for them, values under
// the pointer, and unfolded details on paper. No character that XML would have to escape.
'use strict';
(function () {
    const all = function (what, root) { return Array.from((root || document).querySelectorAll(what)); };
    const make = function (name, text, parent) {
        const e = document.createElement(name);
        e.textContent = text;
        parent.append(e);
        return e;
    };

    // ---- Videos ----
    const videos = all('video');
    const each = function (f) { videos.forEach(f); };
    const play = function () { each(function (v) { v.play().catch(function () { v.controls = true; }); }); };
    const together = function () { each(function (v) { v.currentTime = videos[0].currentTime; }); };
    const buttons = function (grid) {
        const bar = document.createElement('div');
        bar.className = 'controls';
        grid.before(bar);
        const toggle = make('button', 'Pause', bar);
        const step = make('button', 'Next frame', bar);
        const slow = make('button', 'Slow', bar);
        let playing = true;
        const show = function (now) {
            playing = now;
            toggle.textContent = now ? 'Pause' : 'Play';
        };
        toggle.onclick = function () {
            if (playing) each(function (v) { v.pause(); });
            together();
            if (!playing) play();
            show(!playing);
        };
        step.onclick = function () {
            each(function (v) {
                v.pause();
                const next = videos[0] === v ? v.currentTime + 1 / Number(v.dataset.fps) : videos[0].currentTime;
                v.currentTime = v.duration - next > 0 ? next : 0;
            });
            show(false);
        };
        slow.setAttribute('aria-pressed', 'false');
        slow.onclick = function () {
            const on = slow.getAttribute('aria-pressed') === 'false';
            slow.setAttribute('aria-pressed', String(on));
            each(function (v) { v.playbackRate = on ? 0.25 : 1; });
            together();
        };
        if (matchMedia('(prefers-reduced-motion: reduce)').matches) toggle.onclick();
    };
    all('.clips').slice(0, videos.length ? 1 : 0).forEach(function (grid) {
        each(function (v) { v.controls = false; });
        buttons(grid);
        videos[0].addEventListener('seeked', function () { if (0.1 > videos[0].currentTime) together(); }); // it began again
    });

    // ---- Values under the pointer ----
    const digits = function (x) {
        const a = Math.abs(x);
        const text = a !== 0 ? (0.001 > a || a >= 1e5 ? x.toExponential(3) : String(Number(x.toPrecision(4)))) : '0';
        return text.replace(/-/g, '\u2212');
    };
    const pairOf = function (text) { return text.split(' ').map(Number); };
    // Points of a path in the drawing's units, 0 to 1000.
    const pointsOf = function (path) {
        return (path.getAttribute('d').match(/[ML][^MLh]+/g) || []).map(function (p) { return pairOf(p.slice(1)); });
    };
    const read = function (plot) {
        const x = pairOf(plot.dataset.x), y = pairOf(plot.dataset.y), logs = 'log' in plot.dataset;
        const name = plot.querySelector('.axis').textContent;
        const series = all('path[data-name]', plot).map(function (p) {
            return { name: p.dataset.name, at: pointsOf(p) };
        }).filter(function (s) { return s.at.length; });
        const value = function (p) {
            const v = y[1] - p[1] / 1000 * (y[1] - y[0]);
            return digits(logs ? Math.pow(10, v) : v);
        };
        const nearest = function (s, to) {
            return s.at.reduce(function (a, b) { return Math.abs(b[0] - to) >= Math.abs(a[0] - to) ? a : b; });
        };
        return function (share) {
            const first = nearest(series[0], 1000 * share);
            const lines = [name + ' ' + Math.round(x[0] + first[0] / 1000 * (x[1] - x[0]))];
            series.forEach(function (s) { lines.push(s.name + ' ' + value(nearest(s, first[0]))); });
            return { left: first[0] / 10, text: lines.join('\n') };
        };
    };
    all('.plot[data-x]').forEach(function (plot) {
        if (plot.querySelector('path[data-name]') === null) return;
        const at = read(plot);
        let tip = null;
        plot.addEventListener('pointermove', function (e) {
            const box = plot.getBoundingClientRect();
            const now = at((e.clientX - box.left) / box.width);
            if (tip === null) {
                tip = make('div', '', plot);
                make('span', '', tip);
            }
            tip.className = now.left > 55 ? 'tip left' : 'tip';
            tip.style.left = now.left + '%';
            tip.firstChild.textContent = now.text;
        });
        plot.addEventListener('pointerleave', function () {
            if (tip !== null) tip.remove();
            tip = null;
        });
    });

    addEventListener('beforeprint', function () { all('details').forEach(function (d) { d.open = true; }); });
}());
