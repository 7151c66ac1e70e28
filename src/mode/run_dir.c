/* SPDX-License-Identifier: Apache-2.0 */
/* Run directories.  Rank 0 writes; every call agrees, so a full disk ends all ranks
 * alike. A resumed run keeps the metric lines up to the step of its checkpoint, so that
 * the file reads as if the run had never stopped. */
#include "run_dir.h"
#include "environment.h"

#include "kdhpc/base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct kd_run_dir {
    struct kd_comm *comm;
    FILE *metrics, *log; /* NULL off rank 0 */
};

static int write_run_yaml(struct kd_run *run, const char *digests)
{
    struct kd_str text = {0};
    char *path = NULL;
    int rc = KD_OK;

    KD_GO(kd_opts_dump(run->opts, &text));
    KD_GO(kd_str_printf(&text, "\n%s", digests));
    KD_GO(kd_environment_comments(run, &text));
    KD_GO(kd_path_join(run->common->output_dir, "run.yaml", &path));
    KD_GO(kd_write_file(path, text.data, text.len));
out:
    kd_str_free(&text);
    free(path);
    return rc;
}

/* Lines of TEXT whose "step" is at most LAST_STEP. */
static int keep_lines(const struct kd_str *text, int64_t last_step, struct kd_str *kept)
{
    const char *at = text->data, *end = text->data + text->len;

    while (at < end) {
        const char *nl = memchr(at, '\n', (size_t)(end - at));
        struct kd_json *line = NULL;
        bool keep;

        if (!nl)
            return KD_OK; /* cut short by the stop */
        if (kd_json_parse(at, nl - at, "metrics.jsonl", &line)) {
            kd_error_clear();
            return KD_OK;
        }
        keep = kd_json_int(line, "step", 0) <= last_step;
        kd_json_free(line);
        if (keep)
            KD_TRY(kd_str_append(kept, at, nl + 1 - at));
        at = nl + 1;
    }
    return KD_OK;
}

static int open_metrics(struct kd_run_dir *rd, const char *path, int64_t resumed_step)
{
    struct kd_str old = {0}, kept = {0};
    int rc = KD_OK;

    if (resumed_step >= 0 && kd_path_exists(path)) {
        KD_GO(kd_read_file(path, &old));
        KD_GO(keep_lines(&old, resumed_step, &kept));
    }
    KD_GO(kd_write_file(path, kept.data ? kept.data : "", kept.len));
    rd->metrics = fopen(path, "a");
    if (!rd->metrics)
        rc = KD_FAIL(KD_EOUTPUT, "%s: %s", path, strerror(errno));
out:
    kd_str_free(&old);
    kd_str_free(&kept);
    return rc;
}

static int open_root(struct kd_run *run, const char *digests, int64_t resumed_step,
                     struct kd_run_dir *rd)
{
    char *metrics = NULL, *log = NULL;
    int rc = KD_OK;

    if (kd_comm_rank(run->comm) != 0)
        return KD_OK;
    KD_GO(write_run_yaml(run, digests));
    KD_GO(kd_path_join(run->common->output_dir, "metrics.jsonl", &metrics));
    KD_GO(kd_path_join(run->common->output_dir, "log.txt", &log));
    KD_GO(open_metrics(rd, metrics, resumed_step));
    rd->log = fopen(log, resumed_step >= 0 ? "a" : "w");
    if (!rd->log)
        rc = KD_FAIL(KD_EOUTPUT, "%s: %s", log, strerror(errno));
    kd_log_tee(rd->log);
out:
    free(metrics);
    free(log);
    return rc;
}

int kd_run_dir_open(struct kd_run *run, const char *digests, int64_t resumed_step,
                    struct kd_run_dir **out)
{
    struct kd_run_dir *rd = NULL;
    int rc = KD_OK;

    KD_ALL_GO(run->comm, kd_calloc(1, sizeof *rd, &rd));
    rd->comm = run->comm;
    KD_ALL_GO(run->comm, open_root(run, digests, resumed_step, rd));
    *out = rd;
    return KD_OK;
out:
    kd_run_dir_close(rd);
    return rc;
}

static int write_line(struct kd_run_dir *rd, const struct kd_json *line)
{
    char *text = NULL;
    int rc = KD_OK;

    if (!rd->metrics)
        return KD_OK;
    KD_GO(kd_json_dump(line, &text));
    if (fprintf(rd->metrics, "%s\n", text) < 0 || fflush(rd->metrics))
        rc = KD_FAIL(KD_EOUTPUT, "metrics.jsonl: %s", strerror(errno));
out:
    free(text);
    return rc;
}

int kd_run_dir_metrics(struct kd_run_dir *rd, struct kd_json *line)
{
    int rc = write_line(rd, line);

    kd_json_free(line);
    return kd_agree(rd->comm, rc);
}

void kd_run_dir_close(struct kd_run_dir *rd)
{
    if (!rd)
        return;
    kd_log_tee(NULL);
    if (rd->metrics)
        fclose(rd->metrics);
    if (rd->log)
        fclose(rd->log);
    free(rd);
}
