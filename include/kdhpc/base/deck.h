/* SPDX-License-Identifier: Apache-2.0 */
/* Input decks: flat YAML, `option: value`, with lists and `include:`.
 *
 * A deck knows no option names; base/opt.h gives the entries their meaning.  Entries
 * come in the order in which they apply: those of included decks first, so that a
 * deck's own keys win. */
#ifndef KDHPC_BASE_DECK_H
#define KDHPC_BASE_DECK_H

#include "kdhpc/base/status.h"

#include <stdbool.h>
#include <stdint.h>

struct kd_deck_entry {
    char *key;    /* hyphens are underscores here */
    char *origin; /* "deck.yaml:12" */
    char **items; /* [n] scalars as text */
    int64_t n;    /* 1 unless it is a list */
    bool is_list, is_null;
};

struct kd_deck {
    struct kd_deck_entry *entries;
    int64_t n, cap;
};

/** Read the deck at PATH and its includes (relative to the deck that names them) into
 * OUT (zeroed by the caller, freed by kd_deck_free even after a failure).  Local.
 * KD_EINPUT: a file cannot be read; KD_EUSAGE: not a flat deck, or a key twice. */
int kd_deck_read(const char *path, struct kd_deck *out) KD_MUST_CHECK;

/** The last entry of this key, the one that holds, or NULL.  Local. */
const struct kd_deck_entry *kd_deck_find(const struct kd_deck *deck, const char *key);

void kd_deck_free(struct kd_deck *deck);

#endif
