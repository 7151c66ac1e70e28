/* SPDX-License-Identifier: Apache-2.0 */
/* Every generation option with a value does what the key of its name does in
 * generation_config.json, and does something. */
#include "golden.h"

#include "kdhpc/mode/generation_options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FIXTURE KD_SOURCE_DIR "/tests/golden/bart"
#define DIR KD_BINARY_DIR "/generation_options"

enum { SEED = 9 };

static void ok(int rc)
{
    if (rc)
        fail_msg("%s", kd_error_get()->text);
}

/* The settings of a file beside which option NAME is allowed. */
static struct kd_json *settings_for(const char *name)
{
    struct kd_json *j = kd_json_object();

    assert_non_null(j);
    ok(kd_json_set_int(j, "num_beams", strcmp(name, "do_sample") == 0 ? 1 : 4));
    if (strcmp(name, "num_beam_groups") == 0 ||
        strcmp(name, "diversity_penalty") == 0) {
        ok(kd_json_set_int(j, "num_beam_groups", 4));
        ok(kd_json_set_num(j, "diversity_penalty", 0.5));
    }
    return j;
}

static void resolve(const struct kd_generation_options *o, struct kd_model *m,
                    const struct kd_json *file, struct kd_generation *out)
{
    ok(kd_json_write_file(file, DIR "/generation_config.json"));
    ok(kd_generation_resolve(o, DIR, m, SEED, out));
}

/* Set the option of ROW in O, and the key of its name in FILE. */
static void set(const struct kd_opt_row *row, struct kd_generation_options *o,
                struct kd_json *file)
{
    char *field = (char *)o + row->offset;
    bool never = strcmp(row->name, "early_stopping") == 0;

    if (row->type == KD_OPT_INT) {
        *(int64_t *)field = 2;
        ok(kd_json_set_int(file, row->name, 2));
    } else if (row->type == KD_OPT_FLOAT) {
        *(double *)field = 0.25;
        ok(kd_json_set_num(file, row->name, 0.25));
    } else {
        assert_int_equal(row->type, KD_OPT_CHOICE);
        *(int *)field = never ? 2 : 1;
        ok(never ? kd_json_set_str(file, row->name, "never")
                 : kd_json_set_bool(file, row->name, true));
    }
}

static void options_are_settings(void **state)
{
    struct kd_comm *comm = NULL;
    struct kd_common common = {0};
    struct kd_run run = {.common = &common};
    struct kd_model *m = NULL;
    int n = 0;

    (void)state;
    ok(kd_comm_start(&comm));
    ok(kd_backend_cpu(1, &run.be));
    run.comm = comm;
    ok(kd_make_dirs(DIR));
    ok(kd_model_load(&run, FIXTURE, &m));
    for (const struct kd_opt_row *row = kd_generation_rows; row->name; row++, n++) {
        struct kd_generation_options o, unset;
        struct kd_generation got, want, without;
        struct kd_json *file;

        if (row->type == KD_OPT_STR) /* a task, a language: no setting by itself */
            continue;
        file = settings_for(row->name);
        kd_generation_options_unset(&o);
        kd_generation_options_unset(&unset);
        resolve(&unset, m, file, &without);
        set(row, &o, file);
        resolve(&unset, m, file, &want);
        kd_json_free(file);
        file = settings_for(row->name);
        resolve(&o, m, file, &got);
        kd_json_free(file);
        if (memcmp(&got, &want, sizeof got) != 0)
            fail_msg("--%s is not the setting of its name", row->name);
        if (memcmp(&got, &without, sizeof got) == 0)
            fail_msg("--%s does nothing", row->name);
    }
    assert_true(n > 20);
    kd_model_free(m);
    kd_backend_free(run.be);
    kd_comm_stop(comm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(options_are_settings)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
