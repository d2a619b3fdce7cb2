// report_eval: eval.json as prose, tables and bars.
#include "launch/report_eval.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/format/html.h"
#include "launch/report_chart.h"

#define REAL(x) report_page_real(p, x)
#define NO_EVAL                                                                         \
    "<p class=\"none\">Not measured yet: <code>vader eval %s</code> compares base and " \
    "tuned model on the same photos and noise.</p>\n"

// ---- Videos ----

typedef struct Shown {
    int64_t seed;
    int at; // index among the samples
} Shown;

static int by_seed(const void *pa, const void *pb) {
    const Shown *a = pa, *b = pb;
    return a->seed != b->seed ? (a->seed < b->seed ? -1 : 1) : a->at - b->at;
}

// "reward -1.9 -> -0.2 · motion 3.1 -> 2.9" of one sample; no line breaks within a metric.
static const char *sample_note(ReportPage *p, Json *sample) {
    static const char *const name[] = {"reward", "motion"};
    const char *text = "", *comma = "";
    Json *base = NULL, *tuned = NULL;
    if (json_get_object(sample, "base", &base) || json_get_object(sample, "tuned", &tuned) ||
        !base || !tuned)
        return text;
    for (int i = 0; i < 2; i++) {
        double before = NAN, after = NAN;
        if (json_get_f64(base, name[i], &before) || json_get_f64(tuned, name[i], &after)) continue;
        if (!isfinite(before) || !isfinite(after)) continue;
        text = arena_printf(&p->arena, "%s%s%s %s → %s", text, comma, name[i], REAL(before),
                            REAL(after));
        comma = " · ";
    }
    return text;
}

static bool add_sample(ReportPage *p, Json *sample, int64_t seed) {
    const char *video = NULL, *image = "";
    if (json_get_str(sample, "video", &video) || json_get_str(sample, "image", &image) || !video)
        return false;
    const char *slash = strrchr(image, '/');
    return report_page_video(
        p, &(ReportPageVideo){.file = video,
                              .beside = true,
                              .fps = p->d->eval.fps,
                              .caption = arena_printf(&p->arena, "%s, seed %lld",
                                                      slash ? slash + 1 : image, (long long)seed),
                              .note = sample_note(p, sample)});
}

// The first seed of every image, then the second ones.
static void add_eval_videos(ReportPage *p) {
    const ReportEval *e = &p->d->eval;
    Shown *shown = arena_array(&p->arena, Shown, e->sample_cnt + 1);
    for (int i = 0; i < e->sample_cnt; i++) {
        shown[i].at = i;
        if (json_get_i64(e->sample[i], "seed", &shown[i].seed)) shown[i].seed = 0;
    }
    qsort(shown, (size_t)e->sample_cnt, sizeof *shown, by_seed);
    for (int i = 0; i < e->sample_cnt; i++) add_sample(p, e->sample[shown[i].at], shown[i].seed);
}

// Is the sheet of a preview as wide as base and tuned together? PNG keeps its width at byte 16.
static bool is_beside(ReportPage *p, const ReportPreview *v) {
    const Config *cfg = p->d->config;
    unsigned char head[24] = {0};
    int fd = open(arena_printf(&p->arena, "%s/previews/%s.png", p->d->dir, v->name),
                  O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = read(fd, head, sizeof head);
    close(fd);
    int64_t frames = cfg->frames * cfg->segments, width = 0;
    for (int i = 16; i < 20; i++) width = width << 8 | head[i];
    return n == sizeof head && width == frames * 2 * cfg->width + 2 * (frames - 1);
}

static void add_previews(ReportPage *p) {
    const ReportData *d = p->d;
    for (int i = 0; i < d->preview_cnt; i++) {
        const ReportPreview *v = &d->preview[i];
        report_page_video(
            p, &(ReportPageVideo){.file = arena_printf(&p->arena, "previews/%s.mp4", v->name),
                                  .beside = is_beside(p, v),
                                  .fps = d->config->preview_fps,
                                  .caption = arena_printf(&p->arena, "Preview %llu",
                                                          (unsigned long long)v->sample),
                                  .note = arena_printf(&p->arena, "after %llu updates",
                                                       (unsigned long long)v->update)});
    }
}

void report_eval_videos(ReportPage *p) {
    const ReportData *d = p->d;
    bool eval = d->eval.json;
    int all = eval ? d->eval.sample_cnt : d->preview_cnt;
    report_page_section(p, "videos", "Before and after");
    if (!all) {
        html_printf(&p->out,
                    "<p class=\"none\">No videos yet: the run makes previews every %lld updates "
                    "(<code>preview.every</code>), and <code>vader eval %s</code> more.</p>\n",
                    (long long)d->config->preview_every, d->dir);
        report_page_end(p);
        return;
    }
    html_printf(&p->out,
                "<p>Each pair comes from one photo and one noise: the base model on the left, with "
                "the adapter on the right.%s</p>\n",
                eval ? "" : " These are previews made while training; no evaluation yet.");
    report_page_open_videos(p);
    eval ? add_eval_videos(p) : add_previews(p);
    report_page_end_videos(p);
    if (p->video_cnt < all)
        html_printf(&p->out,
                    "<p class=\"none\">%d of %d videos are shown; %d are left out, see "
                    "<code>%s/%s</code>.</p>\n",
                    p->video_cnt, all, all - p->video_cnt, d->dir, eval ? "eval" : "previews");
    report_page_end(p);
}

// ---- Verdict ----

// tuned / base; NaN if one is missing.
static double share_kept(const ReportMetric *m) {
    return m->base.there && m->tuned.there && m->base.mean > 0 ? m->tuned.mean / m->base.mean : NAN;
}

static bool is_lost(const ReportMetric *m) {
    double share = share_kept(m);
    return m->sign && (share < m->least || share > m->most);
}

static void add_caution(ReportPage *p, const ReportMetric *m) {
    double share = share_kept(m);
    bool fell = share < m->least;
    html_printf(&p->out,
                "<p class=\"caution\"><b>Caution: the reward rose, but %s %s to %.0f %% of the "
                "base model’s</b> (%s %.0f %%). A reward can be pleased by %s: look at the "
                "videos before you trust the number.</p>\n",
                m->name, fell ? "fell" : "rose", 100 * share, fell ? "below" : "above",
                100 * (fell ? m->least : m->most), m->sign);
}

static void add_judgement(ReportPage *p) {
    const ReportEval *e = &p->d->eval;
    const ReportMetric *r = report_data_metric(p->d, "reward");
    StrBuf *out = &p->out;
    if (!r || !r->difference.there) return;
    const ReportInterval *d = &r->difference;
    bool clear = d->low > 0 || d->high < 0;
    int cautions = 0;
    for (const ReportMetric *m = e->metric; m < e->metric + e->metric_cnt && d->mean > 0; m++) {
        if (!is_lost(m)) continue;
        add_caution(p, m);
        cautions++;
    }
    if (!clear)
        html_printf(out,
                    "<p class=\"caution\"><b>The change may be chance:</b> the 95 %% interval of "
                    "the difference, %s to %s, holds 0.</p>\n",
                    REAL(d->low), REAL(d->high));
    if (d->high < 0) strbuf_add(out, "<p class=\"caution\"><b>The reward fell.</b></p>\n");
    if (cautions || !(d->low > 0)) return;
    const char *sep = "";
    strbuf_add(out, "<p class=\"sound\"><b>The reward rose, and ");
    for (const ReportMetric *m = e->metric; m < e->metric + e->metric_cnt; m++) {
        double share = share_kept(m);
        if (!m->sign || !isfinite(share)) continue;
        html_printf(out, "%s%s is at %.0f %%", sep, m->name, 100 * share);
        sep = ", ";
    }
    strbuf_add(out, *sep ? " of the base model’s:</b> no sign of reward hacking in these.</p>\n"
                         : "nothing else was measured.</b></p>\n");
}

static void add_interval(ReportPage *p, const ReportInterval *i, bool bold) {
    if (!i->there) {
        strbuf_add(&p->out, "<td>–</td>");
        return;
    }
    html_printf(&p->out,
                bold ? "<td><b>%s</b><small>%s to %s</small></td>"
                     : "<td>%s<small>%s to %s</small></td>",
                REAL(i->mean), REAL(i->low), REAL(i->high));
}

// Under the name: the unit, and of what a reward may cost, how much is left.
static void add_name(ReportPage *p, const ReportMetric *m) {
    static const char *const arrow[] = {"", " ↑", " ↓"};
    int better = !strcmp(m->better, "up") ? 1 : !strcmp(m->better, "down") ? 2 : 0;
    html_printf(&p->out, "<th scope=\"row\">%s%s<small>%s", m->name, arrow[better], m->unit);
    double share = share_kept(m);
    if (m->sign && isfinite(share))
        html_printf(&p->out, "%s<span class=\"%s\">%.0f&#160;%% of the base’s</span>",
                    *m->unit ? " · " : "", is_lost(m) ? "short" : "enough", 100 * share);
    strbuf_add(&p->out, "</small></th>");
}

static void add_row(ReportPage *p, const ReportMetric *m) {
    const ReportInterval *d = &m->difference;
    if (!m->base.there && !m->tuned.there) return;
    strbuf_add(&p->out, "<tr>");
    add_name(p, m);
    add_interval(p, &m->base, false);
    add_interval(p, &m->tuned, false);
    add_interval(p, d, d->low > 0 || d->high < 0);
    strbuf_add(&p->out, "</tr>\n");
}

// The reward and what it may have cost first, the rest in the order of the file.
static void add_table(ReportPage *p) {
    const ReportEval *e = &p->d->eval;
    strbuf_add(&p->out, "<table class=\"verdict\">\n<thead><tr><th scope=\"col\">metric</th><th "
                        "scope=\"col\">base</th><th scope=\"col\">tuned</th><th "
                        "scope=\"col\">difference</th></tr></thead>\n<tbody class=\"key\">\n");
    const ReportMetric *reward = report_data_metric(p->d, "reward");
    if (reward) add_row(p, reward);
    for (int i = 0; i < e->metric_cnt; i++)
        if (e->metric[i].sign) add_row(p, &e->metric[i]);
    strbuf_add(&p->out, "</tbody>\n<tbody>\n");
    for (int i = 0; i < e->metric_cnt; i++)
        if (!e->metric[i].sign && &e->metric[i] != reward) add_row(p, &e->metric[i]);
    html_printf(
        &p->out,
        "</tbody>\n</table>\n<p class=\"fine\">Means over %lld photos with %lld seeds each%s; "
        "below them 95 %% intervals, bootstrapped over photos. Bold: "
        "the interval of the difference leaves out 0. ↑ more is better, ↓ less is.</p>\n",
        (long long)e->images, (long long)e->seeds,
        e->updates < 0 ? ""
                       : arena_printf(&p->arena, ", after %lld updates", (long long)e->updates));
}

static void add_glossary(ReportPage *p) {
    const ReportEval *e = &p->d->eval;
    strbuf_add(&p->out, "<details><summary>What each metric is</summary>\n<dl>\n");
    for (int i = 0; i < e->metric_cnt; i++)
        html_printf(&p->out, "<dt>%s</dt><dd>%s</dd>\n", e->metric[i].name, e->metric[i].about);
    strbuf_add(&p->out, "</dl>\n</details>\n");
}

static void add_scatter(ReportPage *p) {
    const ReportEval *e = &p->d->eval;
    double *x = arena_array(&p->arena, double, e->sample_cnt + 1);
    double *y = arena_array(&p->arena, double, e->sample_cnt + 1);
    size_t cnt = 0, above = 0;
    for (int i = 0; i < e->sample_cnt; i++) {
        Json *base = NULL, *tuned = NULL;
        x[cnt] = y[cnt] = NAN;
        if (json_get_object(e->sample[i], "base", &base) ||
            json_get_object(e->sample[i], "tuned", &tuned) || !base || !tuned ||
            json_get_f64(base, "reward", &x[cnt]) || json_get_f64(tuned, "reward", &y[cnt]))
            continue;
        if (!isfinite(x[cnt]) || !isfinite(y[cnt])) continue;
        above += y[cnt] > x[cnt];
        cnt++;
    }
    if (!cnt) return;
    strbuf_add(&p->out, "<figure class=\"small\">\n");
    report_chart_scatter(&p->out, &p->arena, "Reward of every evaluation video, base against tuned",
                         "base", "tuned", x, y, cnt);
    report_page_caption(p,
                        "Reward of each of %zu pairs of videos. %zu lie above the dashed line: "
                        "the adapter raised them.",
                        cnt, above);
    strbuf_add(&p->out, "</figure>\n");
}

void report_eval_verdict(ReportPage *p) {
    report_page_section(p, "verdict", "Verdict");
    if (p->d->eval.json) {
        add_judgement(p);
        add_table(p);
        add_glossary(p);
        add_scatter(p);
    } else {
        html_printf(&p->out, NO_EVAL, p->d->dir);
    }
    report_page_end(p);
}

// ---- Classes ----

void report_eval_classes(ReportPage *p) {
    const ReportEval *e = &p->d->eval;
    report_page_section(p, "classes", "Classes");
    if (!e->class_cnt) {
        if (e->json)
            strbuf_add(&p->out,
                       "<p class=\"none\">No classifier took part in the evaluation.</p>\n");
        else
            html_printf(&p->out, NO_EVAL, p->d->dir);
        report_page_end(p);
        return;
    }
    strbuf_add(&p->out,
               "<figure>\n<table class=\"rows\">\n<thead><tr><th scope=\"col\">class</th>"
               "<td class=\"bar\"></td><th scope=\"col\"><i class=\"base\"></i>base</th><th "
               "scope=\"col\"><i class=\"tuned\"></i>tuned</th></tr>"
               "</thead>\n<tbody>\n");
    for (int i = 0; i < e->class_cnt; i++) {
        const ReportClass *c = &e->class[i];
        bool target = !strcmp(c->name, e->target);
        html_printf(&p->out, "<tr><th scope=\"row\">%s<small>%s</small></th><td class=\"bar\">",
                    c->name, target ? "rewarded" : "");
        ReportChartBar bar[] = {{"base", 0, c->base, 1, 0}, {"tuned", 0, c->tuned, 1, 0}};
        report_chart_bars(&p->out, bar, 2, false);
        html_printf(&p->out, "</td><td>%.0f %%</td><td>%.0f %%</td></tr>\n", 100 * c->base,
                    100 * c->tuned);
    }
    strbuf_add(&p->out, "</tbody>\n</table>\n");
    report_page_caption(p, "Share of videos by their most probable class.");
    strbuf_add(&p->out, "</figure>\n");
    report_page_end(p);
}

// ---- Headroom ----

static const ReportInterval *loss_of(const ReportEval *e, const char *name) {
    for (int i = 0; i < e->headroom_cnt; i++)
        if (!strcmp(e->headroom[i].name, name)) return &e->headroom[i].loss;
    return NULL;
}

static void add_loss(ReportPage *p, const char *name, const ReportInterval *loss, double most) {
    bool tuned = !strcmp(name, "tuned"), base = !strcmp(name, "base");
    html_printf(&p->out, "<tr><th scope=\"row\">%s</th><td class=\"bar\">", name);
    ReportChartBar bar = {tuned  ? "tuned"
                          : base ? "base"
                                 : "other",
                          0, loss->mean / most, loss->low / most, loss->high / most};
    report_chart_bars(&p->out, &bar, 1, false);
    html_printf(&p->out, "</td><td>%s</td><td class=\"range\"><small>%s to %s</small></td></tr>\n",
                REAL(loss->mean), REAL(loss->low), REAL(loss->high));
}

static void add_gap(ReportPage *p, const ReportInterval *tuned) {
    const ReportInterval *real = loss_of(&p->d->eval, "real"), *base = loss_of(&p->d->eval, "base");
    const ReportInterval *frozen = loss_of(&p->d->eval, "frozen");
    if (tuned && real && base && base->mean > real->mean)
        html_printf(&p->out,
                    "<p>Training closed <b>%.0f %%</b> of the gap between the base model and real "
                    "continuations.</p>\n",
                    100 * (base->mean - tuned->mean) / (base->mean - real->mean));
    if (tuned && real && tuned->mean < real->mean)
        strbuf_add(&p->out, "<p class=\"caution\"><b>Caution: the loss is lower than that of real "
                            "videos.</b> That is not more natural, but easier to predict.</p>\n");
    if (frozen && real && frozen->mean < real->mean)
        strbuf_add(&p->out, "<p>A frozen picture has a lower loss than real motion: read this loss "
                            "with motion beside it.</p>\n");
}

void report_eval_headroom(ReportPage *p) {
    static const char *const first[] = {"real", "base", "tuned"};
    const ReportEval *e = &p->d->eval;
    const ReportMetric *m = report_data_metric(p->d, "vjepa_loss");
    const ReportInterval *tuned = m && m->tuned.there ? &m->tuned : NULL;
    double most = tuned ? tuned->high : 0;
    report_page_section(p, "headroom", "V-JEPA headroom");
    for (int i = 0; i < e->headroom_cnt; i++) most = fmax(most, e->headroom[i].loss.high);
    if (!e->headroom_cnt || !(most > 0)) {
        strbuf_add(&p->out, "<p class=\"none\">Not measured: <code>vader eval</code> does it when "
                            "<code>eval.vjepa</code> names a model.</p>\n");
        report_page_end(p);
        return;
    }
    add_gap(p, tuned);
    strbuf_add(&p->out, "<figure>\n<table class=\"rows\">\n<tbody>\n");
    for (int i = 0; i < 3; i++) {
        const ReportInterval *loss = i == 2 ? tuned : loss_of(e, first[i]);
        if (loss) add_loss(p, first[i], loss, most);
    }
    for (int i = 0; i < e->headroom_cnt; i++) {
        const char *name = e->headroom[i].name;
        if (strcmp(name, "real") && strcmp(name, "base"))
            add_loss(p, name, &e->headroom[i].loss, most);
    }
    strbuf_add(&p->out, "</tbody>\n</table>\n");
    report_page_caption(p, "V-JEPA’s prediction loss, less is better, with 95 %% intervals: real "
                           "continuations, rollouts of the base and the tuned model, one frozen "
                           "frame, a blurred rollout.");
    strbuf_add(&p->out, "</figure>\n");
    report_page_end(p);
}
