// report_page: the frame of a report: head, sections, numbered captions, videos.
//
//     ReportPage p = {.d = data};
//     report_page_open(&p);
//     report_page_section(&p, "reward", "Reward");
//     ... html_printf(&p.out, "<p>%s</p>", text) ...
//     report_page_end(&p);
//     report_page_close(&p);
//     ... p.out ...
//     report_page_fini(&p);
//
// The page loads nothing: its content policy forbids all but what lies in it, and lets run only the script that
// carries this page's random number, so that markup which came in as text could neither call out nor run.
#ifndef LAUNCH_REPORT_PAGE_H
#define LAUNCH_REPORT_PAGE_H

#include "common/base/arena.h"
#include "common/base/strbuf.h"
#include "launch/report_data.h"

enum {
    REPORT_PAGE_VIDEOS_OPEN = 6, // the others are folded away
    REPORT_PAGE_VIDEOS_MAX = 12,
    REPORT_PAGE_VIDEO_BYTES_MAX = 24 << 20,
};

typedef struct ReportPage {
    const ReportData *d;
    StrBuf out;
    Arena arena;
    const char *nonce;
    int figure_cnt, video_cnt;
    size_t video_bytes; // of all files so far
} ReportPage;

// d must be set, the rest zero.
void report_page_open(ReportPage *p);
void report_page_close(ReportPage *p);
void report_page_fini(ReportPage *p);

void report_page_section(ReportPage *p, const char *id, const char *title);
void report_page_end(ReportPage *p);

// "Fig. 3." and what the format says, as html_printf.
void report_page_caption(ReportPage *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// x for people, three digits. Lives as long as the page.
const char *report_page_real(ReportPage *p, double x);

// A video file of the run as part of the page, its first picture from the PNG of the same name (a row of frames) if that is
// there. Between report_page_open_videos and report_page_end_videos. Adds nothing and returns false for what is not there, is no MP4 or leads out of the run, and once the page
// holds REPORT_PAGE_VIDEOS_MAX videos or REPORT_PAGE_VIDEO_BYTES_MAX of them.
typedef struct ReportPageVideo {
    const char *file; // "eval/lake-0.mp4"
    bool beside;      // base on the left, tuned on the right
    int64_t fps;
    const char *caption, *note; // text
} ReportPageVideo;
void report_page_open_videos(ReportPage *p);
void report_page_end_videos(ReportPage *p);
bool report_page_video(ReportPage *p, const ReportPageVideo *v);

#endif
