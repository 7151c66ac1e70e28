/* SPDX-License-Identifier: Apache-2.0 */
/* The Porter stemmer (M. F. Porter, Program 14(3), 1980) with Porter's later changes
 * and the extensions that NLTK turns on by default, because ROUGE is defined by that
 * stemmer.
 *
 * A step is a table of rules; the first rule whose suffix the word ends with decides,
 * whether or not its condition holds.  A word is edited in place and never grows.
 * Called by rouge.c for words of more than three letters. */
#include "kdhpc/metric/metric.h"

#include <stdbool.h>
#include <string.h>

/* What must hold for the part of the word before the suffix. */
enum condition { ALWAYS, M_ABOVE_0, M_ABOVE_1, M_ABOVE_1_AFTER_S_T, M_ABOVE_0_WITH_L };

struct rule {
    const char *suffix, *replacement;
    enum condition condition;
};

struct irregular {
    const char *word, *stem;
};

static const struct irregular irregulars[] = {
    {"sky", "sky"},         {"skies", "sky"},       {"dying", "die"},
    {"lying", "lie"},       {"tying", "tie"},       {"news", "news"},
    {"inning", "inning"},   {"innings", "inning"},  {"outing", "outing"},
    {"outings", "outing"},  {"canning", "canning"}, {"cannings", "canning"},
    {"howe", "howe"},       {"proceed", "proceed"}, {"exceed", "exceed"},
    {"succeed", "succeed"}, {NULL, NULL},
};

static const struct rule plural_rules[] = {
    {"sses", "ss", ALWAYS}, {"ies", "i", ALWAYS}, {"ss", "ss", ALWAYS},
    {"s", "", ALWAYS},      {NULL, NULL, ALWAYS},
};

static const struct rule double_suffix_rules[] = {
    {"ational", "ate", M_ABOVE_0}, {"tional", "tion", M_ABOVE_0},
    {"enci", "ence", M_ABOVE_0},   {"anci", "ance", M_ABOVE_0},
    {"izer", "ize", M_ABOVE_0},    {"bli", "ble", M_ABOVE_0},
    {"alli", "al", M_ABOVE_0},     {"entli", "ent", M_ABOVE_0},
    {"eli", "e", M_ABOVE_0},       {"ousli", "ous", M_ABOVE_0},
    {"ization", "ize", M_ABOVE_0}, {"ation", "ate", M_ABOVE_0},
    {"ator", "ate", M_ABOVE_0},    {"alism", "al", M_ABOVE_0},
    {"iveness", "ive", M_ABOVE_0}, {"fulness", "ful", M_ABOVE_0},
    {"ousness", "ous", M_ABOVE_0}, {"aliti", "al", M_ABOVE_0},
    {"iviti", "ive", M_ABOVE_0},   {"biliti", "ble", M_ABOVE_0},
    {"fulli", "ful", M_ABOVE_0},   {"logi", "log", M_ABOVE_0_WITH_L},
    {NULL, NULL, ALWAYS},
};

static const struct rule ending_rules[] = {
    {"icate", "ic", M_ABOVE_0}, {"ative", "", M_ABOVE_0},  {"alize", "al", M_ABOVE_0},
    {"iciti", "ic", M_ABOVE_0}, {"ical", "ic", M_ABOVE_0}, {"ful", "", M_ABOVE_0},
    {"ness", "", M_ABOVE_0},    {NULL, NULL, ALWAYS},
};

static const struct rule removal_rules[] = {
    {"al", "", M_ABOVE_1},   {"ance", "", M_ABOVE_1}, {"ence", "", M_ABOVE_1},
    {"er", "", M_ABOVE_1},   {"ic", "", M_ABOVE_1},   {"able", "", M_ABOVE_1},
    {"ible", "", M_ABOVE_1}, {"ant", "", M_ABOVE_1},  {"ement", "", M_ABOVE_1},
    {"ment", "", M_ABOVE_1}, {"ent", "", M_ABOVE_1},  {"ion", "", M_ABOVE_1_AFTER_S_T},
    {"ou", "", M_ABOVE_1},   {"ism", "", M_ABOVE_1},  {"ate", "", M_ABOVE_1},
    {"iti", "", M_ABOVE_1},  {"ous", "", M_ABOVE_1},  {"ive", "", M_ABOVE_1},
    {"ize", "", M_ABOVE_1},  {NULL, NULL, ALWAYS},
};

/* A y is a consonant at the start and after a vowel; digits count as consonants. */
static bool is_consonant(const char *w, int64_t i)
{
    bool turned = false;

    while (w[i] == 'y' && i > 0) { /* each y asks the letter before it, and turns */
        turned = !turned;
        i--;
    }
    return (strchr("aeiou", w[i]) == NULL) != turned;
}

/* Number of vowel-consonant sequences in the first LEN letters, counted up to LIMIT. */
static int measure(const char *w, int64_t len, int limit)
{
    bool consonant = true;
    int m = 0;

    for (int64_t i = 0; i < len && m < limit; i++) {
        bool was = consonant;

        /* Known from the letter before, so y needs no walk back. */
        if (w[i] == 'y')
            consonant = i == 0 || !was;
        else
            consonant = strchr("aeiou", w[i]) == NULL;
        if (consonant && !was)
            m++;
    }
    return m;
}

static bool has_vowel(const char *w, int64_t len)
{
    for (int64_t i = 0; i < len; i++)
        if (!is_consonant(w, i))
            return true;
    return false;
}

static bool ends_double_consonant(const char *w, int64_t len)
{
    return len >= 2 && w[len - 1] == w[len - 2] && is_consonant(w, len - 1);
}

/* Consonant, vowel, consonant other than w, x, y; or a whole word vowel, consonant. */
static bool ends_cvc(const char *w, int64_t len)
{
    if (len == 2)
        return !is_consonant(w, 0) && is_consonant(w, 1);
    return len >= 3 && is_consonant(w, len - 3) && !is_consonant(w, len - 2) &&
           is_consonant(w, len - 1) && strchr("wxy", w[len - 1]) == NULL;
}

static bool ends_with(const char *w, int64_t len, const char *suffix)
{
    int64_t n = (int64_t)strlen(suffix);

    return len >= n && memcmp(w + len - n, suffix, (size_t)n) == 0;
}

static bool holds(enum condition c, const char *w, int64_t stem)
{
    switch (c) {
    case ALWAYS:
        return true;
    case M_ABOVE_0:
        return measure(w, stem, 1) > 0;
    case M_ABOVE_0_WITH_L:
        return measure(w, stem + 1, 1) > 0;
    case M_ABOVE_1:
        return measure(w, stem, 2) > 1;
    case M_ABOVE_1_AFTER_S_T:
        return stem > 0 && (w[stem - 1] == 's' || w[stem - 1] == 't') &&
               measure(w, stem, 2) > 1;
    }
    return false;
}

static int64_t put(char *w, int64_t at, const char *text)
{
    size_t n = strlen(text);

    memcpy(w + at, text, n);
    return at + (int64_t)n;
}

static int64_t apply(const struct rule *rules, char *w, int64_t len)
{
    for (const struct rule *r = rules; r->suffix; r++)
        if (ends_with(w, len, r->suffix)) {
            int64_t stem = len - (int64_t)strlen(r->suffix);

            return holds(r->condition, w, stem) ? put(w, stem, r->replacement) : len;
        }
    return len;
}

static int64_t step_plural(char *w, int64_t len)
{
    if (len == 4 && ends_with(w, len, "ies"))
        return len - 1; /* dies -> die */
    return apply(plural_rules, w, len);
}

/* After a dropped ed or ing: hop(p)ing, fil(e)ing, conflat(e)ed. */
static int64_t mend(char *w, int64_t len)
{
    if (ends_with(w, len, "at") || ends_with(w, len, "bl") || ends_with(w, len, "iz"))
        return put(w, len, "e");
    if (ends_double_consonant(w, len))
        return strchr("lsz", w[len - 1]) ? len : len - 1;
    if (measure(w, len, 2) == 1 && ends_cvc(w, len))
        return put(w, len, "e");
    return len;
}

static int64_t step_past(char *w, int64_t len)
{
    if (ends_with(w, len, "ied"))
        return len == 4 ? len - 1 : len - 2; /* died -> die, spied -> spi */
    if (ends_with(w, len, "eed"))
        return measure(w, len - 3, 1) > 0 ? len - 1 : len;
    if (ends_with(w, len, "ed") && has_vowel(w, len - 2))
        return mend(w, len - 2);
    if (ends_with(w, len, "ing") && has_vowel(w, len - 3))
        return mend(w, len - 3);
    return len;
}

static int64_t step_y(char *w, int64_t len)
{
    if (len > 2 && w[len - 1] == 'y' && is_consonant(w, len - 2))
        w[len - 1] = 'i';
    return len;
}

static int64_t step_double_suffix(char *w, int64_t len)
{
    if (ends_with(w, len, "alli") && measure(w, len - 4, 1) > 0)
        len -= 2; /* -alli is -al first, and may then be -ational */
    return apply(double_suffix_rules, w, len);
}

static int64_t step_final(char *w, int64_t len)
{
    if (ends_with(w, len, "e")) {
        int m = measure(w, len - 1, 2);

        if (m > 1 || (m == 1 && !ends_cvc(w, len - 1)))
            len--;
    }
    if (ends_with(w, len, "ll") && measure(w, len - 1, 2) > 1)
        len--;
    return len;
}

int64_t kd_porter_stem(char *word, int64_t len)
{
    for (const struct irregular *i = irregulars; i->word; i++)
        if ((int64_t)strlen(i->word) == len && memcmp(i->word, word, (size_t)len) == 0)
            return put(word, 0, i->stem);
    if (len <= 2)
        return len;
    len = step_plural(word, len);
    len = step_past(word, len);
    len = step_y(word, len);
    len = step_double_suffix(word, len);
    len = apply(ending_rules, word, len);
    len = apply(removal_rules, word, len);
    return step_final(word, len);
}
