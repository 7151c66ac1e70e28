/* SPDX-License-Identifier: Apache-2.0 */
/* Tokenizers: text to ids and back, identical to transformers' for the same directory.
 *
 * One opaque type over all kinds: any tokenizer.json of Unigram, BPE, WordPiece or
 * WordLevel models, and the directories of T5, Pegasus, mBART, mBART-50, Marian, FSMT,
 * BART, RoBERTa, GPT-2 and BERT without one.  What is identical is the fast tokenizer
 * where there is one, else (Marian, FSMT) the slow one.  Thread-safe for encode and
 * decode. */
#ifndef KDHPC_TEXT_TOKENIZER_H
#define KDHPC_TEXT_TOKENIZER_H

#include "kdhpc/base/json.h"
#include "kdhpc/base/str.h"

struct kd_tokenizer;

struct kd_token_ids {
    int32_t *v;
    int64_t n, cap;
};

void kd_token_ids_free(struct kd_token_ids *ids);

/** Read the tokenizer of a model directory.  Local.  KD_EINPUT: none there, damaged, or
 * of an unsupported kind. */
int kd_tokenizer_load(const char *dir, struct kd_tokenizer **out) KD_MUST_CHECK;
void kd_tokenizer_free(struct kd_tokenizer *t);

int64_t kd_tokenizer_size(const struct kd_tokenizer *t); /* source ids are below it */

/** Bound of the ids of the target side and of decoding: another one for Marian and FSMT
 * tokenizers with two vocabularies.  Local. */
int64_t kd_tokenizer_target_size(const struct kd_tokenizer *t);

/** Ids of the special tokens; -1: the tokenizer has none. */
struct kd_special_ids {
    int32_t bos, eos, pad, unk;
};

const struct kd_special_ids *kd_tokenizer_special(const struct kd_tokenizer *t);

/** Content digest of the tokenizer's files (xxh64 in hex, 16 digits).  Local. */
const char *kd_tokenizer_digest(const struct kd_tokenizer *t);

enum kd_text_side { KD_SOURCE, KD_TARGET };

/** Language codes of mBART-type tokenizers; NULL leaves the default.  KD_EINPUT:
 * unknown code.  Local. */
int kd_tokenizer_set_langs(struct kd_tokenizer *t, const char *src_lang,
                           const char *tgt_lang) KD_MUST_CHECK;

/** The language code that targets bear: in front of them (mBART-50, whose outputs are
 * forced to begin with it), or behind (mBART, whose decoder starts with it).  Only
 * where kd_tokenizer_set_langs takes one. */
int32_t kd_tokenizer_target_lang(const struct kd_tokenizer *t, bool *in_front);

/** Encode TEXT[len] of SIDE with special tokens into IDS (replaced), truncated to
 * MAX_LENGTH ids (<= 0: not) with the special tokens kept; *TRUNCATED (may be NULL)
 * says so. Local, thread-safe.  KD_ENOMEM. */
int kd_tokenizer_encode(const struct kd_tokenizer *t, enum kd_text_side side,
                        const char *text, int64_t len, int64_t max_length,
                        struct kd_token_ids *ids, bool *truncated) KD_MUST_CHECK;

/** Decode IDS[n] into OUT (replaced), special tokens skipped, cleaned up as
 * tokenizer_config.json says.  Local. */
int kd_tokenizer_decode(const struct kd_tokenizer *t, const int32_t *ids, int64_t n,
                        struct kd_str *out) KD_MUST_CHECK;

/** Names of the tokenizer files that are present in DIR, NULL-terminated, for copying
 * (static strings).  Local. */
int kd_tokenizer_files(const char *dir, const char **names, int max_names);

/** What to train: SentencePiece over lines of text. */
struct kd_tokenizer_training {
    char *const *inputs;
    int64_t n_inputs;
    int64_t vocab_size;
    bool bpe; /* else unigram */
    double character_coverage;
    int64_t input_sentences; /* 0: all */
    int n_threads;
    uint64_t seed;
};

/** Train and write a T5Tokenizer directory (pad 0, eos 1 appended, unk 2) that
 * AutoTokenizer loads.  Local. */
int kd_tokenizer_train(const struct kd_tokenizer_training *training,
                       const char *dir) KD_MUST_CHECK;

#endif
