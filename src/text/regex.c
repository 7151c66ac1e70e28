/* SPDX-License-Identifier: Apache-2.0 */
/* The patterns of tokenizer.json, written for Oniguruma, through PCRE2.
 *
 * What the two read differently is spelled out first (regex_syntax.c); ^ and $ hold at
 * every line.  The compiled pattern is read-only, so threads share it. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer_impl.h"

#include "kdhpc/base/mem.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

struct kd_regex {
    pcre2_code *code;
};

static int compile(const char *pattern, const char *shown, const char *what,
                   struct kd_regex **out)
{
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    struct kd_regex *r = NULL;
    PCRE2_UCHAR text[120] = "";
    int error = 0, rc = KD_OK;
    PCRE2_SIZE at = 0;

    if (!context)
        return KD_FAIL(KD_ENOMEM, "no memory for a regular expression");
    KD_GO(kd_calloc(1, sizeof *r, &r));
    (void)pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    r->code =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &at, context);
    if (!r->code) {
        (void)pcre2_get_error_message(error, text, sizeof text);
        rc = KD_FAIL(KD_EINPUT, "tokenizer.json: %s: cannot read the pattern %s: %s",
                     what, shown, (const char *)text);
        goto out;
    }
    (void)pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE); /* slower without, same */
    *out = r;
    r = NULL;
out:
    kd_regex_free(r);
    pcre2_compile_context_free(context);
    return rc;
}

int kd_regex_new(const char *pattern, const char *what, struct kd_regex **out)
{
    struct kd_str text = {0};
    int rc = KD_OK;

    *out = NULL;
    KD_GO(kd_str_append(&text, "", 0));
    KD_GO(kd_regex_translate(pattern, &text));
    rc = compile(text.data, pattern, what, out);
out:
    kd_str_free(&text);
    return rc;
}

int kd_regex_literal(const char *text, struct kd_regex **out)
{
    struct kd_str pattern = {0};
    int rc = KD_OK;

    *out = NULL;
    for (const char *p = text; *p; p++) {
        bool plain = (unsigned char)*p >= 0x80 || (*p >= '0' && *p <= '9') ||
                     (*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z');

        if (!plain)
            KD_GO(kd_str_append(&pattern, "\\", 1));
        KD_GO(kd_str_append(&pattern, p, 1));
    }
    KD_GO(kd_str_append(&pattern, "", 0));
    rc = compile(pattern.data, text, "literal", out);
out:
    kd_str_free(&pattern);
    return rc;
}

void kd_regex_free(struct kd_regex *r)
{
    if (r)
        pcre2_code_free(r->code);
    free(r);
}

/** Match from AT on; interpreted where the compiled code's stack is too small. */
static int match_from(const struct kd_regex *r, const char *text, int64_t len,
                      PCRE2_SIZE at, uint32_t options, pcre2_match_data *match)
{
    int rc = pcre2_match(r->code, (PCRE2_SPTR)text, (PCRE2_SIZE)len, at,
                         PCRE2_NO_UTF_CHECK | options, match, NULL);

    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(r->code, (PCRE2_SPTR)text, (PCRE2_SIZE)len, at,
                         PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT | options, match, NULL);
    return rc;
}

int kd_regex_next(const struct kd_regex *r, void *match, const char *text, int64_t len,
                  struct kd_regex_walk *w, bool *found)
{
    *found = false;
    while (w->at <= len) {
        int rc = match_from(r, text, len, (PCRE2_SIZE)w->at, 0, match);
        const PCRE2_SIZE *v = pcre2_get_ovector_pointer(match);
        int n = 1;

        if (rc == PCRE2_ERROR_NOMATCH)
            return KD_OK;
        if (rc < 0)
            return KD_FAIL(KD_EINTERNAL, "PCRE2 error %d while cutting text", rc);
        w->start = (int64_t)v[0];
        w->stop = (int64_t)v[1];
        *found = w->stop > w->start || w->last != w->stop;
        if (*found) {
            w->at = w->last = w->stop;
            return KD_OK;
        }
        if (w->at < len) /* an empty match again: one character on */
            (void)kd_utf8_next(text + w->at, len - w->at, &n);
        w->at += n;
    }
    return KD_OK;
}

static int append_replacement(const char *text, const PCRE2_SIZE *v, int n_groups,
                              const char *to, struct kd_str *out)
{
    for (const char *p = to; *p; p++) {
        int group = *p == '$' && p[1] >= '1' && p[1] <= '9' ? p[1] - '0' : 0;

        if (!group) {
            KD_TRY(kd_str_append(out, p, 1));
            continue;
        }
        p++;
        if (group < n_groups)
            KD_TRY(kd_str_append(out, text + v[2 * group],
                                 (int64_t)(v[2 * group + 1] - v[2 * group])));
    }
    return KD_OK;
}

int kd_regex_replace(const struct kd_regex *r, const char *text, int64_t len,
                     const char *to, struct kd_str *out)
{
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(r->code, NULL);
    PCRE2_SIZE done = 0, at = 0;
    int rc = KD_OK, n = 0;

    if (!match)
        return KD_FAIL(KD_ENOMEM, "no memory for matching");
    while (at <= (PCRE2_SIZE)len) {
        const PCRE2_SIZE *v = pcre2_get_ovector_pointer(match);

        n = match_from(r, text, len, at, PCRE2_NOTEMPTY, match);
        if (n < 0)
            break;
        KD_GO(kd_str_append(out, text + done, (int64_t)(v[0] - done)));
        KD_GO(append_replacement(text, v, n, to, out));
        done = at = v[1];
    }
    if (n < 0 && n != PCRE2_ERROR_NOMATCH) {
        rc = KD_FAIL(KD_EINTERNAL, "PCRE2 error %d while replacing text", n);
        goto out;
    }
    rc = kd_str_append(out, text + done, len - (int64_t)done);
out:
    pcre2_match_data_free(match);
    return rc;
}
