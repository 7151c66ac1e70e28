/* SPDX-License-Identifier: Apache-2.0 */
/* Messages and progress on stderr.
 *
 * The one piece of state is who speaks and how; it is set once by kd_log_setup.  A
 * terminal shows one progress line that is rewritten in place, and a message that comes
 * between wipes it first; elsewhere progress is whole lines at a slower pace, which go
 * to the run's log.txt too. */
#include "kdhpc/base/log.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 1024 };

static const double bar_interval_s = 0.2, lines_interval_s = 5.0;

static struct {
    int rank, n_ranks;
    enum kd_log_level level;
    enum kd_progress_style style; /* AUTO is resolved by kd_log_setup */
    FILE *tee;
    bool bar_on_screen;
} speaker = {.n_ranks = 1, .level = KD_LOG_INFO, .style = KD_PROGRESS_LINES};

void kd_log_setup(int rank, int n_ranks, enum kd_log_level level,
                  enum kd_progress_style style)
{
    speaker.rank = rank;
    speaker.n_ranks = n_ranks;
    speaker.level = level;
    speaker.style = style;
    if (style == KD_PROGRESS_AUTO)
        speaker.style = isatty(STDERR_FILENO) ? KD_PROGRESS_BAR : KD_PROGRESS_LINES;
}

void kd_log_tee(FILE *file)
{
    speaker.tee = file;
}

int kd_log_rank(void)
{
    return speaker.rank;
}

double kd_now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Names in files may hold anything, also what moves a terminal's cursor. */
void kd_log_plain(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = ' ';
}

/* One write per line, so that lines of several ranks do not mix. */
static void print_line(const char *line)
{
    fprintf(stderr, "%s%s\n", speaker.bar_on_screen ? "\r\033[K" : "", line);
    speaker.bar_on_screen = false;
    if (speaker.tee) {
        fprintf(speaker.tee, "%s\n", line);
        fflush(speaker.tee);
    }
}

static bool speaks(enum kd_log_level level)
{
    if (level > speaker.level)
        return false;
    return speaker.rank == 0 || speaker.level >= KD_LOG_DEBUG;
}

void kd_log(enum kd_log_level level, const char *fmt, ...)
{
    static const char *const prefix[] = {"error: ", "warning: ", "", ""};
    char line[LINE_MAX_BYTES];
    int n;
    va_list ap;

    if (!speaks(level))
        return;
    n = snprintf(line, sizeof line, "kdhpc: %s", prefix[level]);
    if (speaker.level >= KD_LOG_DEBUG && speaker.n_ranks > 1)
        n += snprintf(line + n, sizeof line - (size_t)n, "rank %d: ", speaker.rank);
    va_start(ap, fmt);
    vsnprintf(line + n, sizeof line - (size_t)n, fmt, ap);
    va_end(ap);
    kd_log_plain(line);
    print_line(line);
}

/* ---- progress ---- */

static bool shows_progress(void)
{
    return speaker.rank == 0 && speaker.style != KD_PROGRESS_NONE &&
           speaker.level >= KD_LOG_INFO;
}

static void format_time(double s, char *out, size_t cap)
{
    long long t = (long long)(s + 0.5);

    if (t >= 3600)
        snprintf(out, cap, "%lld:%02lld:%02lld", t / 3600, t / 60 % 60, t % 60);
    else
        snprintf(out, cap, "%lld:%02lld", t / 60, t % 60);
}

/* "label 12/100 12% TEXT, 0:05, 0:40 left" */
static void format_progress(const struct kd_progress *p, int64_t done, const char *text,
                            char *out, size_t cap)
{
    double spent = kd_now_s() - p->start_s;
    int64_t made = done - p->start_done;
    char spent_text[32], left_text[48] = "", count[64];

    format_time(spent, spent_text, sizeof spent_text);
    snprintf(count, sizeof count, "%lld", (long long)done);
    if (p->total > 0) {
        snprintf(count, sizeof count, "%lld/%lld %3.0f%%", (long long)done,
                 (long long)p->total, 100.0 * (double)done / (double)p->total);
        if (made > 0 && done < p->total) {
            char left[32];

            format_time(spent * (double)(p->total - done) / (double)made, left,
                        sizeof left);
            snprintf(left_text, sizeof left_text, ", %s left", left);
        }
    }
    snprintf(out, cap, "kdhpc: %s %s%s%s, %s%s", p->label, count, *text ? " " : "",
             text, spent_text, left_text);
}

struct kd_progress kd_progress_start(const char *label, int64_t total, int64_t done)
{
    double now = kd_now_s();

    return (struct kd_progress){.label = label,
                                .total = total,
                                .start_s = now,
                                .shown_s = now,
                                .start_done = done};
}

void kd_progress_update(struct kd_progress *p, int64_t done, const char *fmt, ...)
{
    bool bar = speaker.style == KD_PROGRESS_BAR;
    char text[512], line[LINE_MAX_BYTES];
    double now = kd_now_s();
    va_list ap;

    if (!shows_progress() ||
        now - p->shown_s < (bar ? bar_interval_s : lines_interval_s))
        return;
    p->shown_s = now;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    format_progress(p, done, text, line, sizeof line);
    if (!bar) {
        print_line(line);
        return;
    }
    fprintf(stderr, "\r%s\033[K", line);
    fflush(stderr);
    speaker.bar_on_screen = true;
    p->open = true;
}

void kd_progress_end(struct kd_progress *p)
{
    if (p->open && speaker.bar_on_screen) {
        fputc('\n', stderr);
        speaker.bar_on_screen = false;
    }
    p->open = false;
}
