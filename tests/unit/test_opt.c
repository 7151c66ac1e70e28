/* SPDX-License-Identifier: Apache-2.0 */
/* Option rows and decks: precedence, every type, every refusal and its wording, and the
 * dump that reads back to the same values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kdhpc/base/deck.h"
#include "kdhpc/base/opt.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LEN(array) ((int)(sizeof(array) / sizeof *(array)))

struct inner {
    double rate;
};

struct config {
    int64_t steps, beams;
    bool flag, on;
    int kind, stop;
    const char *text;
    struct kd_int_list ints;
    struct kd_str_list texts;
    struct inner inner;
};

#define AT(field) offsetof(struct config, field)
static const struct kd_opt_row rows[] = {
    {"max_steps", KD_OPT_INT, AT(steps), "-1", -1, KD_NO_MAX, NULL, "steps", 0},
    {"num_beams", KD_OPT_INT, AT(beams), NULL, 1, 64, NULL, "beams", 0},
    {"flag", KD_OPT_BOOL, AT(flag), "false", 0, 0, NULL, "a flag", 0},
    {"on", KD_OPT_BOOL, AT(on), "true", 0, 0, NULL, "on by default", 0},
    {"kind", KD_OPT_CHOICE, AT(kind), "linear", 0, 0, "linear|cosine", "kind", 0},
    {"stop", KD_OPT_CHOICE, AT(stop), NULL, 0, 0, "false|true|never", "stop", 0},
    {"text", KD_OPT_STR, AT(text), NULL, 0, 0, NULL, "text", 0},
    {"ints", KD_OPT_INT_LIST, AT(ints), NULL, 0, 99, NULL, "ints", 0},
    {"texts", KD_OPT_STR_LIST, AT(texts), "p,q", 0, 0, NULL, "texts", 0},
};
static const struct kd_opt_row inner_rows[] = {
    {"rate", KD_OPT_FLOAT, offsetof(struct inner, rate), "5e-5", 0, KD_NO_MAX, NULL,
     "rate", 0},
    {.name = NULL},
};
static const struct kd_opt_row required_rows[] = {
    {"must", KD_OPT_STR, AT(text), NULL, 0, 0, NULL, "must be there", KD_OPT_REQUIRED},
};
static const struct kd_opt_group groups[] = {
    {"Group", rows, LEN(rows), 0},
    {"Inner", inner_rows, 0, AT(inner)},
};

static bool other_mode(const char *name)
{
    return !strcmp(name, "others");
}

static int resolve(struct config *c, const char *deck, const char *line,
                   struct kd_opts **out)
{
    char *argv[32], copy[512], *save = NULL;
    int argc = 0;

    memset(c, 0, sizeof *c);
    strncpy(copy, line, sizeof copy - 1);
    copy[sizeof copy - 1] = '\0';
    for (char *word = strtok_r(copy, " ", &save); word;
         word = strtok_r(NULL, " ", &save))
        argv[argc++] = word;
    kd_error_clear();
    return kd_opts_resolve(groups, LEN(groups), c, "sft", deck, argc, argv, other_mode,
                           out);
}

static void refused(const char *deck, const char *line, int code, const char *part,
                    const char *other_part)
{
    struct config c;
    struct kd_opts *o = NULL;

    assert_int_equal(resolve(&c, deck, line, &o), code);
    assert_null(o);
    if (!strstr(kd_error_get()->text, part) ||
        !strstr(kd_error_get()->text, other_part))
        fail_msg("'%s' lacks '%s' or '%s'", kd_error_get()->text, part, other_part);
}

/* A deck of this text in a new file; the caller unlinks and frees. */
static char *deck_file(const char *text)
{
    char *path = strdup("/tmp/kdhpc-deck-XXXXXX");
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(kd_write_file(path, text, (int64_t)strlen(text)), KD_OK);
    return path;
}

static void drop(char *path)
{
    unlink(path);
    free(path);
}

static void defaults_and_unset(void **state)
{
    struct config c;
    struct kd_opts *o;

    (void)state;
    assert_int_equal(resolve(&c, NULL, "", &o), KD_OK);
    assert_int_equal(c.steps, -1);
    assert_true(c.beams == KD_UNSET_INT);
    assert_true(!c.flag && c.on && c.kind == 0 && c.stop == -1 && !c.text);
    assert_int_equal(c.ints.n, -1);
    assert_int_equal(c.texts.n, 2);
    assert_string_equal(c.texts.v[1], "q");
    assert_true(c.inner.rate == 5e-5);
    assert_false(kd_opts_given(o, "max_steps"));
    kd_opts_free(o);
}

static void command_line_forms(void **state)
{
    struct config c;
    struct kd_opts *o;

    (void)state;
    assert_int_equal(resolve(&c, NULL,
                             "--max-steps=5 --num_beams 4 --flag --on false --kind "
                             "cosine --stop --text=--x --ints [1,2,3] --texts a,b "
                             "--rate 1e-3",
                             &o),
                     KD_OK);
    assert_int_equal(c.steps, 5);
    assert_int_equal(c.beams, 4);
    assert_true(c.flag && !c.on && c.kind == 1 && c.stop == 1);
    assert_string_equal(c.text, "--x");
    assert_int_equal(c.ints.n, 3);
    assert_int_equal(c.ints.v[2], 3);
    assert_string_equal(c.texts.v[0], "a");
    assert_true(c.inner.rate == 1e-3);
    assert_true(kd_opts_given(o, "max_steps") && !kd_opts_given(o, "none"));
    kd_opts_free(o);
    assert_int_equal(resolve(&c, NULL, "--stop never --flag --max_steps -1", &o),
                     KD_OK);
    assert_true(c.stop == 2 && c.flag && c.steps == -1);
    kd_opts_free(o);
    assert_int_equal(resolve(&c, NULL, "--stop True --flag True --kind Cosine", &o),
                     KD_OK);
    assert_true(c.stop == 1 && c.flag && c.kind == 1);
    kd_opts_free(o);
    assert_int_equal(resolve(&c, NULL, "--max_steps 1 --max_steps 2 --text -", &o),
                     KD_OK);
    assert_int_equal(c.steps, 2);
    assert_string_equal(c.text, "-");
    kd_opts_free(o);
}

static void command_line_refusals(void **state)
{
    (void)state;
    refused(NULL, "--max_stepz 5", KD_EUSAGE, "--max_stepz (command line)",
            "did you mean --max_steps?");
    refused(NULL, "--qqqqqqqqqq 5", KD_EUSAGE, "--qqqqqqqqqq", "--help");
    refused(NULL, "--others 5", KD_EUSAGE, "--others (command line)", "another mode");
    refused(NULL, "--num_beams 0", KD_EUSAGE, "--num_beams (command line)",
            "from 1 to 64");
    refused(NULL, "--num_beams 4x", KD_EUSAGE, "'4x'", "an integer");
    refused(NULL, "--num_beams 99999999999999999999", KD_EUSAGE, "9999", "an integer");
    refused(NULL, "--rate -1", KD_EUSAGE, "'-1'", "a number >= 0");
    refused(NULL, "--rate inf", KD_EUSAGE, "'inf'", "a number >= 0");
    refused(NULL, "--rate nan", KD_EUSAGE, "'nan'", "a number >= 0");
    refused(NULL, "--rate", KD_EUSAGE, "--rate", "needs a value");
    refused(NULL, "--text --flag", KD_EUSAGE, "--text", "needs a value");
    refused(NULL, "--flag=maybe", KD_EUSAGE, "'maybe'", "true or false");
    refused(NULL, "--flag maybe", KD_EUSAGE, "'maybe'", "not an option");
    refused(NULL, "--kind cos", KD_EUSAGE, "'cos'", "linear|cosine");
    refused(NULL, "--ints 1,x", KD_EUSAGE, "'x'", "list");
    refused(NULL, "--ints 1,100", KD_EUSAGE, "'100'", "from 0 to 99");
    refused(NULL, "--texts a,,b", KD_EUSAGE, "--texts", "list");
    refused(NULL, "--text \xFF", KD_EUSAGE, "--text", "UTF-8");
    refused(NULL, "word", KD_EUSAGE, "'word'", "not an option");
}

static void required_is_required(void **state)
{
    static const struct kd_opt_group must = {"Group", required_rows, 1, 0};
    char *argv[] = {"--must=x"};
    struct config c = {0};
    struct kd_opts *o;

    (void)state;
    kd_error_clear();
    assert_int_equal(kd_opts_resolve(&must, 1, &c, "m", NULL, 0, NULL, NULL, &o),
                     KD_EUSAGE);
    assert_non_null(strstr(kd_error_get()->text, "--must is required"));
    kd_error_clear();
    assert_int_equal(kd_opts_resolve(&must, 1, &c, "m", NULL, 1, argv, NULL, &o),
                     KD_OK);
    kd_opts_free(o);
}

static void decks_apply_before_the_command_line(void **state)
{
    char *deck = deck_file("# comment\nmode: sft\nmax-steps: 7\nnum_beams: 3\n"
                           "others: 1\nflag: true\ntext: \"a: b\"\nints: [4, 5]\n"
                           "texts:\n  - x,y\n  - z\nrate: null\n");
    struct config c;
    struct kd_opts *o;

    (void)state;
    assert_int_equal(resolve(&c, deck, "--num_beams 9", &o), KD_OK);
    assert_int_equal(c.steps, 7);
    assert_int_equal(c.beams, 9);
    assert_true(c.flag);
    assert_string_equal(c.text, "a: b");
    assert_int_equal(c.ints.v[1], 5);
    assert_int_equal(c.texts.n, 2);
    assert_string_equal(c.texts.v[0], "x,y");
    assert_true(isnan(c.inner.rate));
    assert_true(kd_opts_given(o, "flag") && !kd_opts_given(o, "rate"));
    kd_opts_free(o);
    drop(deck);
}

static void deck_refused(const char *text, int code, const char *part,
                         const char *other_part)
{
    char *deck = deck_file(text);

    refused(deck, "", code, part, other_part);
    drop(deck);
}

static void deck_refusals(void **state)
{
    (void)state;
    deck_refused("max_steps: 1\n\nmax_stepz: 5\n", KD_EUSAGE, ":3)",
                 "did you mean --max_steps?");
    deck_refused("num_beams: 100\n", KD_EUSAGE, ":1)", "from 1 to 64");
    deck_refused("max_steps: 1\nmax-steps: 2\n", KD_EUSAGE, ":2)", "already given");
    deck_refused("text:\n  a: b\n", KD_EUSAGE, ":2", "flat");
    deck_refused("- a\n- b\n", KD_EUSAGE, ":1", "flat");
    deck_refused("text: [a, [b]]\n", KD_EUSAGE, ":1", "flat");
    deck_refused("text: \"a\n", KD_EUSAGE, "not valid YAML", "kdhpc-deck-");
    deck_refused("text: [a]\n", KD_EUSAGE, "--text", "a list");
    deck_refused("text: &x a\nkind: *x\n", KD_EUSAGE, ":2", "neither a scalar");
    deck_refused("mode: kd\n", KD_EUSAGE, "mode", "not for sft");
    deck_refused("text: a\n---\ntext: b\n", KD_EUSAGE, "second document", ":2");
    refused("/nonexistent/deck.yaml", "", KD_EINPUT, "/nonexistent/deck.yaml",
            "No such file");
}

static void includes_are_relative_and_weaker(void **state)
{
    char *base = deck_file("max_steps: 1\nnum_beams: 2\n"), text[256];
    char *top, *loop;
    struct config c;
    struct kd_opts *o;

    (void)state;
    assert_int_equal(kd_format(text, sizeof text, "include: %s\nmax_steps: 5\n",
                               strrchr(base, '/') + 1),
                     KD_OK);
    top = deck_file(text);
    assert_int_equal(resolve(&c, top, "", &o), KD_OK);
    assert_int_equal(c.steps, 5);
    assert_int_equal(c.beams, 2);
    kd_opts_free(o);
    loop = deck_file("");
    assert_int_equal(kd_format(text, sizeof text, "include: %s\n", loop), KD_OK);
    assert_int_equal(kd_write_file(loop, text, (int64_t)strlen(text)), KD_OK);
    refused(loop, "", KD_EUSAGE, "include each other", loop);
    drop(loop);
    deck_refused("include: not-there.yaml\n", KD_EINPUT, "/tmp/not-there.yaml", "");
    drop(top);
    drop(base);
}

static void dump_reads_back(void **state)
{
    struct config c, d;
    struct kd_opts *o, *p;
    struct kd_str first = {0}, second = {0};
    char *deck;

    (void)state;
    assert_int_equal(resolve(&c, NULL,
                             "--rate 0.1 --text=a\"b:\\\xC3\xA9\t- --ints=[] --texts "
                             "null,true --stop never",
                             &o),
                     KD_OK);
    assert_int_equal(kd_opts_dump(o, &first), KD_OK);
    assert_memory_equal(first.data, "# kdhpc ", 8);
    assert_non_null(strstr(first.data, "\nmode: sft\n"));
    assert_non_null(strstr(first.data, "\nrate: 0.1\n"));
    assert_non_null(strstr(first.data, "\nnum_beams: null\n"));
    deck = deck_file(first.data);
    assert_int_equal(resolve(&d, deck, "", &p), KD_OK);
    assert_string_equal(d.text, c.text);
    assert_int_equal(d.ints.n, 0);
    assert_string_equal(d.texts.v[0], "null");
    assert_true(d.inner.rate == c.inner.rate);
    assert_int_equal(kd_opts_dump(p, &second), KD_OK);
    assert_string_equal(first.data, second.data);
    kd_str_free(&first);
    kd_str_free(&second);
    kd_opts_free(o);
    kd_opts_free(p);
    drop(deck);
}

static void help_names_everything(void **state)
{
    struct kd_str help = {0};

    (void)state;
    assert_int_equal(kd_opts_help(groups, LEN(groups), &help), KD_OK);
    for (int i = 0; i < LEN(rows); i++)
        assert_non_null(strstr(help.data, rows[i].name));
    assert_non_null(strstr(help.data, "(default 5e-5; >= 0)"));
    assert_non_null(strstr(help.data, "(unset; from 1 to 64)"));
    assert_non_null(strstr(help.data, "false|true|never"));
    assert_true(kd_opts_has(groups, LEN(groups), "rate"));
    assert_false(kd_opts_has(groups, LEN(groups), "others"));
    kd_str_free(&help);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_and_unset),
        cmocka_unit_test(command_line_forms),
        cmocka_unit_test(command_line_refusals),
        cmocka_unit_test(required_is_required),
        cmocka_unit_test(decks_apply_before_the_command_line),
        cmocka_unit_test(deck_refusals),
        cmocka_unit_test(includes_are_relative_and_weaker),
        cmocka_unit_test(dump_reads_back),
        cmocka_unit_test(help_names_everything),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
