/* SPDX-License-Identifier: Apache-2.0 */
/* The program: command line, ranks, mode, one report, exit code.
 *
 * Texts (--help and the like) never start MPI.  Everything else, wrong usage included,
 * is reported through a vote where a launcher started us, so that one line comes out
 * whichever rank failed; alone, wrong usage is reported without MPI.  The order of a
 * run: options are agreed on, outputs are checked and the directory made by rank 0,
 * then threads, backend and watchdog, then the mode. */
#include "command.h"
#include "device.h"
#include "threads.h"

#include "kdhpc/base/signal.h"
#include "kdhpc/base/version.h"
#include "kdhpc/comm/watchdog.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- before MPI is up ---- */

/* What launchers tell their processes: Open MPI, PMIx, MPICH and Hydra, Slurm. */
static const char *const rank_names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK",
                                         "PMI_RANK", "SLURM_PROCID"};

static const char *launcher_rank(void)
{
    for (size_t i = 0; i < sizeof rank_names / sizeof *rank_names; i++) {
        const char *rank = getenv(rank_names[i]);

        if (rank)
            return rank;
    }
    return NULL;
}

static bool speaks_before_mpi(void)
{
    const char *rank = launcher_rank();

    return !rank || !strcmp(rank, "0");
}

/* ---- the report ---- */

static void report(int failed_rank)
{
    const struct kd_error *e = kd_error_get();
    const char *kind = e->code == KD_ESTOPPED ? "stopped" : "error";

    fflush(stdout);
    if (failed_rank > 0)
        fprintf(stderr, "kdhpc: %s: rank %d: %s\n", kind, failed_rank, e->text);
    else
        fprintf(stderr, "kdhpc: %s: %s\n", kind, e->text);
    kd_debug("that was at %s:%d, code %d", e->file, e->line, e->code);
}

static int report_text_form(int rc)
{
    if (rc && speaks_before_mpi())
        report(-1);
    return rc;
}

/* ---- output directory ---- */

/* The first member of DIR that PATTERN fits, into NAME; false: none, or no DIR. */
static bool dir_holds(const char *dir, const char *pattern, char *name, size_t cap)
{
    DIR *d = opendir(dir);
    bool found = false;

    for (struct dirent *e; d && !found && (e = readdir(d));)
        found = fnmatch(pattern, e->d_name, 0) == 0 &&
                kd_format(name, cap, "%s", e->d_name) == KD_OK;
    if (d)
        closedir(d);
    return found;
}

static int refuse_existing(const struct command *c)
{
    const char *const *pattern = c->mode->outputs;
    bool resumes = c->mode->resumes && c->mode->resumes(c->config);
    char name[NAME_MAX + 1];

    if (!pattern || c->common->overwrite || resumes)
        return KD_OK;
    for (; *pattern; pattern++)
        if (dir_holds(c->common->output_dir, *pattern, name, sizeof name))
            return KD_FAIL(KD_EOUTPUT, "%s already holds %s; --overwrite replaces it%s",
                           c->common->output_dir, name,
                           c->mode->resumes ? ", --resume goes on from it" : "");
    return KD_OK;
}

/* Rank 0's work. */
static int prepare_output_dir(void *arg)
{
    const struct command *c = arg;
    const char *dir = c->common->output_dir;

    if (!dir)
        return KD_OK;
    KD_TRY(KD_FAULT("program.output_dir"));
    KD_TRY(refuse_existing(c));
    KD_TRY(kd_make_dirs(dir));
    if (access(dir, W_OK | X_OK))
        return KD_FAIL(KD_EOUTPUT, "cannot write in %s: %s", dir, strerror(errno));
    return KD_OK;
}

/* ---- the run ---- */

/* Say once what runs where. */
static int announce(const struct kd_run *run, const struct command *c, int threads)
{
    int size = kd_comm_size(run->comm);
    struct kd_str device = {0};
    int rc = kd_device_text(run, &device);

    if (!rc)
        kd_info("version " KDHPC_VERSION
                ", mode %s, %d rank%s with %d thread%s each; %s",
                c->mode->name, size, size == 1 ? "" : "s", threads,
                threads == 1 ? "" : "s", device.data);
    kd_str_free(&device);
    return rc;
}

/* Everything printed must have arrived, or the run has not done its work. */
static int run_mode(struct kd_run *run, const struct command *c)
{
    KD_TRY(c->mode->run(run, c->config));
    if (fflush(stdout) || ferror(stdout))
        return KD_FAIL(KD_EOUTPUT, "cannot write to standard output: %s",
                       strerror(errno));
    return KD_OK;
}

/* The ranks' part: COMM is up.  READ_RC is what reading the command line gave here. */
static int run_ranks(struct kd_comm *comm, struct command *c, int read_rc)
{
    struct kd_run run = {.comm = comm};
    int threads = 1, rc = KD_OK;

    KD_ALL_GO(comm, read_rc);
    if (c->mode->stops)
        kd_stop_install();
    run.common = c->common;
    run.opts = c->opts;
    kd_log_setup(kd_comm_rank(comm), kd_comm_size(comm),
                 (enum kd_log_level)c->common->log_level,
                 (enum kd_progress_style)c->common->progress);
    KD_GO(kd_root_do(comm, prepare_output_dir, c));
    KD_GO(kd_threads_choose(comm, c->common->threads, &threads));
    KD_GO(kd_device_open(&run, c->mode, threads));
    KD_ALL_GO(comm, kd_watchdog_start(c->common->deadline_s));
    KD_ALL_GO(comm, announce(&run, c, threads));
    KD_ALL_GO(comm, run_mode(&run, c));
out:
    kd_watchdog_stop();
    kd_comm_drop_backend(comm);
    kd_backend_free(run.be);
    return rc;
}

static int start_ranks(struct command *c, int read_rc)
{
    struct kd_comm *comm = NULL;
    int rc = kd_comm_start(&comm);

    if (rc) {
        if (kd_log_rank() == 0)
            report(-1);
        return rc;
    }
    rc = run_ranks(comm, c, read_rc);
    if (rc && kd_comm_rank(comm) == 0)
        report(kd_comm_failed_rank(comm));
    kd_comm_stop(comm);
    return rc;
}

int kd_program(int argc, char **argv)
{
    struct command c = {0};
    int rc = kd_command_read(&c, argc, argv);

    if (kd_command_is_text(&c)) {
        if (!rc && speaks_before_mpi())
            rc = kd_command_print(&c);
        rc = report_text_form(rc);
    } else if (rc && !launcher_rank()) {
        report(-1);
    } else {
        rc = start_ranks(&c, rc);
    }
    kd_command_free(&c);
    return rc;
}
