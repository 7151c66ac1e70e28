/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the Moses rules share: properties of characters, text as an array
 * of code points, and the tables. */
#ifndef KDHPC_SRC_TEXT_MOSES_IMPL_H
#define KDHPC_SRC_TEXT_MOSES_IMPL_H

#include "tokenizer_impl.h"

/** A language and its abbreviations, with spaces between. */
struct kd_moses_language {
    const char *name, *prefixes;
};

extern const struct kd_char_range KD_MOSES_ALPHA[], KD_MOSES_DIGIT[], KD_MOSES_NUMBER[],
    KD_MOSES_CURRENCY[], KD_MOSES_LOWER[], KD_MOSES_NOT_LOWER[];
extern const int KD_MOSES_N_ALPHA, KD_MOSES_N_DIGIT, KD_MOSES_N_NUMBER,
    KD_MOSES_N_CURRENCY, KD_MOSES_N_LOWER, KD_MOSES_N_NOT_LOWER;
extern const struct kd_moses_language KD_MOSES_LANGUAGES[];
extern const int KD_MOSES_N_LANGUAGES;
extern const char
    *const KD_MOSES_OTHERS[]; /* with lists that are not here; NULL ends */

enum kd_moses_class {
    KD_MOSES_IS_ALPHA = 1,
    KD_MOSES_IS_DIGIT = 2, /* the other part of alphanumeric */
    KD_MOSES_IS_NUMBER = 4,
    KD_MOSES_IS_CURRENCY = 8,
    KD_MOSES_IS_LOWER = 16,
    KD_MOSES_IS_ALNUM = KD_MOSES_IS_ALPHA | KD_MOSES_IS_DIGIT,
};

enum { KD_MOSES_N_CHARS = 0x1F000 }; /* no character from here on is in a class */

/** One rule of the normaliser: a literal or a pattern, and what replaces it. */
struct kd_moses_rule;

struct kd_moses {
    char lang[4];
    uint8_t *classes; /* [KD_MOSES_N_CHARS] enum kd_moses_class */
    struct kd_strtab prefixes, numeric_prefixes;
    struct kd_regex **rules; /* by the list of rules; NULL: a literal or not for LANG */
};

static inline unsigned kd_moses_class_of(const struct kd_moses *m, uint32_t cp)
{
    return cp < KD_MOSES_N_CHARS ? m->classes[cp] : 0;
}

/** Code points; zero-initialise, free V. */
struct kd_chars {
    uint32_t *v;
    int64_t n, cap;
};

int kd_chars_push(struct kd_chars *c, uint32_t cp) KD_MUST_CHECK;
int kd_chars_text(struct kd_chars *c, const char *ascii) KD_MUST_CHECK; /* append */

/** Compile the rules of the normaliser for M's language. */
int kd_moses_rules_new(struct kd_moses *m) KD_MUST_CHECK;
void kd_moses_rules_free(struct kd_moses *m);

#endif
