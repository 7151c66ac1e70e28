/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the text layer share: the pipeline that a tokenizer is made of.
 *
 * Every tokenizer, whatever its files, becomes the same chain, in the order in which
 * the fast tokenizers of the field apply it: split the raw text at added tokens,
 * normalise what lies between, split again at added tokens that are matched in
 * normalised text, cut into words, segment each word by the model, add the special
 * tokens.  Readers (layout.c, tokenizer_json.c) fill the chain; tokenizer.c runs it. */
#ifndef KDHPC_SRC_TEXT_TOKENIZER_IMPL_H
#define KDHPC_SRC_TEXT_TOKENIZER_IMPL_H

#include "kdhpc/text/tokenizer.h"

#include <pthread.h>

/** Characters from FIRST to LAST. */
struct kd_char_range {
    uint32_t first, last;
};

/** Whether CP is in one of the N ranges, which are in order.  Local. */
bool kd_char_in(const struct kd_char_range *ranges, int n, uint32_t cp);

/* ---- strtab.c: strings and their ids ---- */

/** Strings by id, and ids by string once indexed.  Holes are allowed. */
struct kd_strtab {
    struct kd_str bytes;
    int64_t *at;  /* [n] place of the string of id i in BYTES, -1: hole */
    int32_t *len; /* [n] */
    int64_t n, cap_at, cap_len;
    int64_t n_strings; /* without holes */
    int32_t *slots;    /* open addressing, -1: free */
    int64_t n_slots;   /* a power of two */
};

int kd_strtab_put(struct kd_strtab *t, int64_t id, const char *s,
                  int64_t len) KD_MUST_CHECK;
int kd_strtab_index(struct kd_strtab *t) KD_MUST_CHECK; /* a later equal string wins */
int32_t kd_strtab_find(const struct kd_strtab *t, const char *s, int64_t len);
const char *kd_strtab_get(const struct kd_strtab *t, int64_t id, int64_t *len);
void kd_strtab_free(struct kd_strtab *t);
uint64_t kd_text_hash(const char *s, int64_t len);

/* ---- unicode.c ---- */

bool kd_is_python_space(
    uint32_t cp); /* what str.split and str.strip see: 1C to 1F too */
/** Narrow *TEXT[*LEN] to what str.strip leaves. */
void kd_python_strip(const char **text, int64_t *len);
/** The next word of str.split in *TEXT[*LEN], taken off its front; false: none left. */
bool kd_next_word(const char **text, int64_t *len, const char **word, int64_t *n);
bool kd_is_white_space(uint32_t cp);  /* property White_Space */
bool kd_is_word_char(uint32_t cp);    /* \w of UTS 18 */
bool kd_is_number(uint32_t cp);       /* category N */
bool kd_is_punctuation(uint32_t cp);  /* category P, and all of ASCII's */
bool kd_is_invisible(uint32_t cp);    /* categories Cc, Cf, Co */
bool kd_is_category_c(uint32_t cp);   /* C, so unassigned as well */
bool kd_is_nonspacing(uint32_t cp);   /* category Mn */
bool kd_is_mark(uint32_t cp);         /* category M */
bool kd_is_lower_letter(uint32_t cp); /* category Ll */
uint32_t kd_lower_char(uint32_t cp);  /* simple lower case */

enum kd_normal_form { KD_NFC, KD_NFD, KD_NFKC, KD_NFKD };

/** Append TEXT[len], valid UTF-8, in normal form FORM. */
int kd_str_append_normal(struct kd_str *out, enum kd_normal_form form, const char *text,
                         int64_t len) KD_MUST_CHECK;
/** Append TEXT[len] in lower case; FINAL_SIGMA: the sigma that ends a word its own. */
int kd_str_append_lower(struct kd_str *out, const char *text, int64_t len,
                        bool final_sigma) KD_MUST_CHECK;
/** Bytes of ASCII at the start of TEXT[len]. */
int64_t kd_ascii_run(const char *text, int64_t len);

/** Finds extended grapheme clusters; read-only once made, shared by threads. */
struct kd_graphemes;
int kd_graphemes_new(struct kd_graphemes **out) KD_MUST_CHECK;
void kd_graphemes_free(struct kd_graphemes *g);

/** Bytes of the first cluster of S[len], valid UTF-8, LEN > 0.  MATCH is a
 * pcre2_match_data. */
int64_t kd_grapheme_len(const struct kd_graphemes *g, void *match, const char *s,
                        int64_t len);

/** Append S[len] with every maximal invalid part replaced by U+FFFD. */
int kd_str_append_lossy(struct kd_str *out, const char *s, int64_t len) KD_MUST_CHECK;

/* ---- regex.c: patterns of tokenizer.json, through PCRE2 ---- */

struct kd_regex;

/** Append PATTERN as PCRE2 writes what Oniguruma reads. */
int kd_regex_translate(const char *pattern, struct kd_str *out) KD_MUST_CHECK;
/** Compile PATTERN as Oniguruma reads it.  WHAT names it in the error, KD_EINPUT. */
int kd_regex_new(const char *pattern, const char *what,
                 struct kd_regex **out) KD_MUST_CHECK;
/** A pattern that matches TEXT itself. */
int kd_regex_literal(const char *text, struct kd_regex **out) KD_MUST_CHECK;
void kd_regex_free(struct kd_regex *r);

/** A walk over the matches in a text; begin with KD_REGEX_WALK. */
struct kd_regex_walk {
    int64_t start, stop; /* of the match */
    int64_t at, last;    /* where to search on; end of the last match, -1 */
};

#define KD_REGEX_WALK ((struct kd_regex_walk){.last = -1})

/** Next match in TEXT[len]; *FOUND says whether there is one.  An empty match right
 * after another match is passed over.  MATCH is a pcre2_match_data. */
int kd_regex_next(const struct kd_regex *r, void *match, const char *text, int64_t len,
                  struct kd_regex_walk *w, bool *found) KD_MUST_CHECK;

/** Append TEXT[len] with every match replaced by TO, $1 to $9 being its groups. */
int kd_regex_replace(const struct kd_regex *r, const char *text, int64_t len,
                     const char *to, struct kd_str *out) KD_MUST_CHECK;

/* ---- charsmap.c ---- */

/** The double array and replacement strings of a SentencePiece model. */
struct kd_charsmap {
    uint32_t *units; /* [n_units] */
    int64_t n_units;
    char *replacements; /* NUL-terminated strings, one more NUL at the end */
    int64_t replacements_len;
    bool ascii_is_plain; /* no printable ASCII character has an entry */
};

int kd_charsmap_read(const char *blob, int64_t len,
                     struct kd_charsmap *out) KD_MUST_CHECK;
void kd_charsmap_free(struct kd_charsmap *m);

/** Append TEXT[len], mapped cluster by cluster.  MATCH is a pcre2_match_data. */
int kd_charsmap_apply(const struct kd_charsmap *m, const struct kd_graphemes *g,
                      void *match, const char *text, int64_t len,
                      struct kd_str *out) KD_MUST_CHECK;
/** Replacement of the longest entry that begins TEXT[len], or NULL; *N: its bytes. */
const char *kd_charsmap_longest(const struct kd_charsmap *m, const char *text,
                                int64_t len, int64_t *n);

/* ---- normalise.c ---- */

enum kd_norm_kind {
    KD_NORM_CHARSMAP,   /* replace by the model's character map, cluster by cluster */
    KD_NORM_STRIP,      /* white space off the ends */
    KD_NORM_SPACE_RUNS, /* two or more spaces become CONTENT */
    KD_NORM_REPLACE,    /* every PATTERN becomes CONTENT */
    KD_NORM_PREPEND,    /* CONTENT before text that is not empty */
    KD_NORM_REGEX,      /* every match of REGEX becomes CONTENT */
    KD_NORM_FORM,       /* a normal form of Unicode */
    KD_NORM_LOWER,
    KD_NORM_DROP_MARKS,      /* category M */
    KD_NORM_DROP_NONSPACING, /* category Mn */
    KD_NORM_BERT_CLEAN,      /* drop what is invisible, white space becomes a space */
    KD_NORM_BERT_CJK,        /* a space before and after every ideograph */
    KD_NORM_NMT,             /* the cleaning of SentencePiece's nmt rules */
    KD_NORM_BYTE_CHARS,      /* every byte becomes the character that stands for it */
};

struct kd_norm_step {
    enum kd_norm_kind kind;
    bool strip_left, strip_right;
    enum kd_normal_form form;
    char *pattern, *content;
    struct kd_regex *regex;
};

enum { KD_MAX_NORM_STEPS = 24, KD_MAX_CUT_STEPS = 8, KD_MAX_DECODE_STEPS = 12 };
enum { KD_MAX_AFFIX = 8 };

/* ---- the chain ---- */

struct kd_added_token {
    char *content;
    int64_t content_len;
    char *pattern; /* what is looked for: CONTENT, or its normalised form */
    int64_t pattern_len;
    int32_t id;
    bool lstrip, rstrip, single_word, normalized, special;
};

/** Tokens to be found in raw (or normalised) text, longest first per first byte. */
struct kd_added_index {
    int32_t *order; /* [n] places in the list of added tokens */
    int64_t n;
    int32_t
        first[257]; /* those that begin with byte b: order[first[b]..first[b + 1]) */
};

enum kd_prepend { KD_PREPEND_NEVER, KD_PREPEND_FIRST, KD_PREPEND_ALWAYS };

enum kd_cut_kind {
    KD_CUT_CHARS,      /* at the characters of a class */
    KD_CUT_REGEX,      /* at the matches of REGEX, or (INVERT) at what lies between */
    KD_CUT_METASPACE,  /* spaces become MARK, which begins a word */
    KD_CUT_BYTE_LEVEL, /* the GPT-2 pattern; the model sees bytes as characters */
};

enum kd_char_class {
    KD_CHARS_SPACE,
    KD_CHARS_PUNCTUATION,
    KD_CHARS_NUMBER,
    KD_CHARS_ONE /* CHARACTER alone */
};

/** What becomes of the places where text is cut. */
enum kd_cut_behaviour {
    KD_CUT_REMOVED,
    KD_CUT_ISOLATED,
    KD_CUT_WITH_PREVIOUS,
    KD_CUT_WITH_NEXT,
    KD_CUT_CONTIGUOUS,
};

struct kd_cut_step {
    enum kd_cut_kind kind;
    enum kd_cut_behaviour behaviour;
    enum kd_char_class chars;
    uint32_t character;
    bool invert;
    struct kd_regex *regex;
    char mark[5]; /* metaspace: usually U+2581 */
    int mark_len;
    enum kd_prepend prepend;
    bool split;            /* metaspace: at its marks */
    bool add_prefix_space; /* byte level */
};

enum kd_decode_kind {
    KD_DECODE_BYTE_LEVEL,
    KD_DECODE_METASPACE, /* PATTERN becomes a space; FLAG: but not in the first token */
    KD_DECODE_WORD_PIECE, /* PATTERN off the front, else a space there; FLAG: clean up
                           */
    KD_DECODE_SUFFIX,     /* PATTERN becomes a space, nothing in the last token */
    KD_DECODE_REPLACE,    /* matches of REGEX become CONTENT */
    KD_DECODE_FUSE,
    KD_DECODE_STRIP, /* PATTERN, a character, off the ends, START and STOP times */
    KD_DECODE_BYTE_FALLBACK, /* <0x..> in a row become text */
};

struct kd_decode_step {
    enum kd_decode_kind kind;
    char *pattern, *content;
    struct kd_regex *regex;
    int64_t start, stop;
    bool flag;
};

enum kd_segmenter { KD_UNIGRAM, KD_BPE, KD_WORD_PIECE, KD_WORD_LEVEL };

/** Unigram: pieces in byte order, and where each pair of first bytes begins. */
struct kd_unigram {
    const struct kd_strtab *pieces; /* borrowed */
    double *score;                  /* [n_pieces] by id */
    bool single;                    /* sums in single precision, as SentencePiece's */
    int32_t *sorted;                /* ids in byte order of their pieces */
    int64_t n_sorted;
    int32_t *first; /* [65537] pieces whose first two bytes are below the index */
    double unk_score;
};

/** BPE: rank and result of each pair that merges. */
struct kd_merges {
    uint64_t *pair; /* left << 32 | right, UINT64_MAX: free slot */
    int32_t *rank, *result;
    int64_t n_slots; /* a power of two */
    int64_t n;
    int32_t byte_id[256];  /* byte level: id of the symbol of each byte, -1: none */
    bool byte_level;       /* words come as bytes, not as the characters for them */
    bool ignore;           /* a word that is a piece is not segmented */
    char *prefix, *suffix; /* of symbols that go on, and of the last; NULL: none */
};

/** WordPiece: pieces that go on a word, without the prefix that says so. */
struct kd_word_pieces {
    struct kd_strtab tails;
    int64_t max_chars;          /* of a word; longer ones are unknown */
    int64_t max_head, max_tail; /* bytes of the longest pieces */
};

struct kd_affix {
    int32_t before[KD_MAX_AFFIX], after[KD_MAX_AFFIX];
    int n_before, n_after;
};

struct kd_scratch;
struct kd_moses;
struct kd_spm_processor;
struct kd_spm_encoder;

/** What tokenizers have that are no chain: Marian's two SentencePiece models, FSMT's
 * Moses rules, and a vocabulary of its own for what is decoded. */
struct kd_slow {
    struct kd_spm_encoder *spm[2]; /* by enum kd_text_side; NULL: FSMT */
    struct kd_moses *moses[2];
    struct kd_strtab target; /* empty: one vocabulary for both sides */
    bool own_target;         /* texts of the target side are encoded by it */
    bool lower;
    int64_t n_vocab; /* of the source; later pieces are parts of merges only */
    int32_t unk[2];
};

struct kd_tokenizer {
    char digest[17];
    struct kd_strtab pieces; /* of the model */
    enum kd_segmenter segmenter;
    struct kd_unigram unigram;
    struct kd_merges merges;
    struct kd_word_pieces word_pieces;
    int32_t unk_piece; /* what the model emits for the unknown, -1: nothing */
    bool fuse_unk, byte_fallback;

    struct kd_norm_step norm[KD_MAX_NORM_STEPS];
    int n_norm;
    struct kd_charsmap charsmap;
    struct kd_graphemes *graphemes;

    struct kd_cut_step cut[KD_MAX_CUT_STEPS];
    int n_cut;

    struct kd_added_token *added;
    int64_t n_added, cap_added;
    struct kd_added_index raw_index, normalized_index;
    int32_t *added_by_id; /* [size] place in ADDED, -1 */

    struct kd_affix affix[2]; /* by enum kd_text_side */
    bool has_langs, lang_before;
    struct kd_special_ids special;
    int64_t size; /* ids are below it */

    struct kd_decode_step decode[KD_MAX_DECODE_STEPS];
    int n_decode;
    bool decode_joins; /* no decoder: tokens with spaces between */
    bool cleanup;

    struct kd_slow *slow;         /* NULL: all of the above says what happens */
    struct kd_scratch_pool *pool; /* scratch memory that threads borrow */
};

/** One encode's memory: kept between calls, so that steady state allocates nothing. */
struct kd_scratch {
    struct kd_scratch *next;
    struct kd_str norm[2];               /* the two sides of a normalisation step */
    struct kd_str cut[KD_MAX_CUT_STEPS]; /* text as each step of the cutter writes it */
    struct kd_str bytes[KD_MAX_CUT_STEPS]; /* a word's bytes as characters, by step */
    struct kd_str word, symbol;            /* one word, one symbol as it is looked up */
    void *match;                           /* pcre2_match_data */
    struct kd_viterbi_node *nodes;
    struct kd_symbol *symbols;
    struct kd_heap_entry *heap;
    int64_t cap_nodes, cap_symbols, cap_heap, n_heap;
    struct kd_word *words; /* direct-mapped cache of words and their ids */
};

struct kd_scratch_pool {
    pthread_mutex_t lock;
    struct kd_scratch *free;
};

int kd_scratch_take(const struct kd_tokenizer *t,
                    struct kd_scratch **out) KD_MUST_CHECK;
void kd_scratch_give(const struct kd_tokenizer *t, struct kd_scratch *s);
void kd_scratch_free_all(struct kd_scratch_pool *pool);

int kd_token_ids_push(struct kd_token_ids *ids, int32_t id) KD_MUST_CHECK;

/** Normalise TEXT[len] by all steps; *OUT and *OUT_LEN borrow from S or TEXT.
 * *AT_START, if not NULL, becomes false where a step drops the first character. */
int kd_normalise(const struct kd_tokenizer *t, struct kd_scratch *s, const char *text,
                 int64_t len, const char **out, int64_t *out_len,
                 bool *at_start) KD_MUST_CHECK;

/** Cut TEXT[len] into words and append the ids of each; AT_START: it begins where the
 * raw text begins. */
int kd_cut_and_segment(const struct kd_tokenizer *t, struct kd_scratch *s,
                       const char *text, int64_t len, bool at_start,
                       struct kd_token_ids *ids) KD_MUST_CHECK;

/** Append a step to the cutter; NULL when there are too many. */
struct kd_cut_step *kd_cut_add(struct kd_tokenizer *t, enum kd_cut_kind kind);
/** Append the byte-level step, with its pattern or without. */
int kd_cut_add_byte_level(struct kd_tokenizer *t, bool add_prefix_space,
                          bool use_regex) KD_MUST_CHECK;
/** Append the metaspace step with the usual mark. */
int kd_cut_add_metaspace(struct kd_tokenizer *t, enum kd_prepend prepend,
                         bool split) KD_MUST_CHECK;

/* ---- segment.c ---- */

/** Append the ids of WORD[len]. */
int kd_segment(const struct kd_tokenizer *t, struct kd_scratch *s, const char *word,
               int64_t len, struct kd_token_ids *ids) KD_MUST_CHECK;

int kd_word_piece_prepare(struct kd_tokenizer *t, const char *prefix) KD_MUST_CHECK;
int kd_word_piece_segment(const struct kd_tokenizer *t, struct kd_scratch *s,
                          const char *word, int64_t len,
                          struct kd_token_ids *ids) KD_MUST_CHECK;
int kd_word_level_segment(const struct kd_tokenizer *t, const char *word, int64_t len,
                          struct kd_token_ids *ids) KD_MUST_CHECK;

/** Prepare U over PIECES, of which those with a score of -INFINITY never match.
 * PENALISED: the unknown is by that much below the least score. */
int kd_unigram_prepare(struct kd_unigram *u, const struct kd_strtab *pieces,
                       double min_score) KD_MUST_CHECK;
void kd_unigram_free(struct kd_unigram *u);
/** Lowest score of N pieces. */
double kd_unigram_min_score(const struct kd_unigram *u, int64_t n);

typedef int kd_take_piece(void *arg, const char *word, int64_t start, int64_t stop,
                          int32_t id);

/** Hand the pieces of the best path over WORD[len] to TAKE in order; id -1: an unknown
 * character. */
int kd_unigram_best_path(const struct kd_unigram *u, struct kd_scratch *s,
                         const char *word, int64_t len, kd_take_piece *take,
                         void *arg) KD_MUST_CHECK;
int kd_unigram_segment(const struct kd_tokenizer *t, struct kd_scratch *s,
                       const char *word, int64_t len,
                       struct kd_token_ids *ids) KD_MUST_CHECK;

/** Append the byte pieces <0x..> of TEXT[len] if all exist; *DONE says so. */
int kd_byte_pieces(const struct kd_tokenizer *t, const char *text, int64_t len,
                   struct kd_token_ids *ids, bool *done) KD_MUST_CHECK;

/** Declare that LEFT and RIGHT merge with RANK; their join must be a piece. */
int kd_merges_reserve(struct kd_merges *m, int64_t n) KD_MUST_CHECK;
int kd_merges_add(struct kd_tokenizer *t, const char *left, int64_t left_len,
                  const char *right, int64_t right_len, int64_t rank) KD_MUST_CHECK;
void kd_bpe_prepare(struct kd_tokenizer *t);
int kd_bpe_segment(const struct kd_tokenizer *t, struct kd_scratch *s, const char *word,
                   int64_t len, struct kd_token_ids *ids) KD_MUST_CHECK;

/** The character that stands for BYTE in byte-level vocabularies, and back (-1: none).
 */
uint32_t kd_byte_level_char(uint8_t byte);
int kd_byte_level_byte(uint32_t cp);
/** Append TEXT[len] with every byte as its character. */
int kd_str_append_byte_chars(struct kd_str *out, const char *text,
                             int64_t len) KD_MUST_CHECK;

/* ---- decode.c ---- */

/** Append a step to the decoder, PATTERN and CONTENT (may be NULL) copied. */
int kd_decode_add(struct kd_tokenizer *t, enum kd_decode_kind kind, const char *pattern,
                  const char *content) KD_MUST_CHECK;
void kd_decode_free(struct kd_tokenizer *t);
/** Drop the space in front of punctuation and English contractions; WORD_PIECE: by the
 * longer list of rules of that decoder. */
int kd_clean_up(struct kd_str *s, bool word_piece) KD_MUST_CHECK;

/* ---- added.c ---- */

/** Add TOKEN (content copied), or change the one of the same content. */
int kd_added_put(struct kd_tokenizer *t, const struct kd_added_token *token,
                 const char *content) KD_MUST_CHECK;
/** Place of CONTENT among the added tokens, or -1. */
int64_t kd_added_find(const struct kd_tokenizer *t, const char *content);
int64_t kd_added_find_bytes(const struct kd_tokenizer *t, const char *content,
                            int64_t len);
/** Id of CONTENT among added tokens, else pieces; -1: none. */
int32_t kd_token_id(const struct kd_tokenizer *t, const char *content);
int kd_added_prepare(struct kd_tokenizer *t) KD_MUST_CHECK;
void kd_added_free(struct kd_tokenizer *t);

struct kd_added_match {
    int64_t start, stop; /* with the white space that the token swallows */
    int64_t next;        /* where to look on */
    int32_t id;
};

/** First added token of INDEX in TEXT[len] from FROM on, not before FLOOR. */
bool kd_added_next(const struct kd_tokenizer *t, const struct kd_added_index *index,
                   const char *text, int64_t len, int64_t from, int64_t floor,
                   struct kd_added_match *out);

/* ---- readers ---- */

/** Fill the chain from a tokenizer.json. */
int kd_read_tokenizer_json(struct kd_tokenizer *t, const char *path) KD_MUST_CHECK;

/* ---- json_steps.c: components of tokenizer.json ---- */

int kd_json_read_normalizer(struct kd_tokenizer *t,
                            const struct kd_json *j) KD_MUST_CHECK;
int kd_json_read_cutter(struct kd_tokenizer *t, const struct kd_json *j) KD_MUST_CHECK;
int kd_json_read_decoder(struct kd_tokenizer *t, const struct kd_json *j) KD_MUST_CHECK;
/** Refuse J, a component of the kind PART, by its type. */
int kd_json_refuse(const char *part, const struct kd_json *j) KD_MUST_CHECK;
/** The steps of BERT's normaliser.  STRIP_ACCENTS < 0: as LOWERCASE says. */
int kd_norm_add_bert(struct kd_tokenizer *t, bool clean, bool cjk, int strip_accents,
                     bool lowercase) KD_MUST_CHECK;

/** The families of tokenizer classes: their files, defaults and special tokens. */
enum kd_layout {
    KD_LAYOUT_T5,
    KD_LAYOUT_MBART,
    KD_LAYOUT_MBART50,
    KD_LAYOUT_BART,
    KD_LAYOUT_GPT2,
    KD_LAYOUT_BERT,
    KD_LAYOUT_PEGASUS,
    KD_LAYOUT_MARIAN,
    KD_LAYOUT_FSMT,
    KD_LAYOUT_JSON, /* a tokenizer.json of no class that is known here */
    KD_N_LAYOUTS
};

/** Fill the chain from a SentencePiece model file. */
int kd_read_spm_layout(struct kd_tokenizer *t, const char *path, enum kd_layout layout,
                       const struct kd_json *config) KD_MUST_CHECK;
/** Fill the chain from vocab.json and merges.txt. */
int kd_read_byte_bpe_layout(struct kd_tokenizer *t, const char *dir) KD_MUST_CHECK;

/** Fill the chain from vocab.txt. */
int kd_read_bert_layout(struct kd_tokenizer *t, const char *path,
                        const struct kd_json *config) KD_MUST_CHECK;
/** Marian: source.spm, target.spm, vocab.json, and target_vocab.json if separate. */
int kd_read_marian_layout(struct kd_tokenizer *t, const char *dir,
                          const struct kd_json *config) KD_MUST_CHECK;
/** FSMT: vocab-src.json, vocab-tgt.json, merges.txt. */
int kd_read_fsmt_layout(struct kd_tokenizer *t, const char *dir,
                        const struct kd_json *config) KD_MUST_CHECK;
/** Put the {"piece": id} of the file DIR/NAME into PIECES and index it. */
int kd_read_vocab_json(const char *dir, const char *name,
                       struct kd_strtab *pieces) KD_MUST_CHECK;

/* ---- slow.c, fsmt.c ---- */

int kd_slow_new(struct kd_tokenizer *t) KD_MUST_CHECK;
void kd_slow_free(struct kd_slow *slow);
int kd_slow_encode(const struct kd_tokenizer *t, struct kd_scratch *s,
                   enum kd_text_side side, const char *text, int64_t len,
                   struct kd_token_ids *ids) KD_MUST_CHECK;
int kd_slow_decode(const struct kd_tokenizer *t, const int32_t *ids, int64_t n,
                   struct kd_str *out) KD_MUST_CHECK;
/** Encode TEXT[len] between two added tokens by Moses rules and BPE. */
int kd_fsmt_encode(const struct kd_tokenizer *t, struct kd_scratch *s,
                   enum kd_text_side side, const char *text, int64_t len,
                   struct kd_token_ids *ids) KD_MUST_CHECK;
/** Id of PIECE[len] on SIDE, the unknown's if there is none. */
int32_t kd_slow_piece_id(const struct kd_tokenizer *t, enum kd_text_side side,
                         const char *piece, int64_t len);

/* ---- spm_encode.c ---- */

int kd_spm_encoder_new(const char *path, struct kd_spm_encoder **out) KD_MUST_CHECK;
void kd_spm_encoder_free(struct kd_spm_encoder *e);
/** Append the pieces of TEXT[len] as the library makes them, KD_PIECE_END after each.
 */
int kd_spm_encoder_run(const struct kd_spm_encoder *e, struct kd_scratch *s,
                       const char *text, int64_t len, struct kd_str *out) KD_MUST_CHECK;
/** The library's object, for decoding. */
const struct kd_spm_processor *kd_spm_encoder_library(const struct kd_spm_encoder *e);

/* ---- moses.c, moses_words.c, detokenise.c ---- */

/** The rules of language LANG.  KD_EINPUT: not among those that are known. */
int kd_moses_new(const char *lang, struct kd_moses **out) KD_MUST_CHECK;
void kd_moses_free(struct kd_moses *m);
/** Punctuation and spaces as Moses normalises them, then without what is invisible. */
int kd_moses_normalise(const struct kd_moses *m, const char *text, int64_t len,
                       struct kd_str *out) KD_MUST_CHECK;
/** Words of TEXT[len] with one space between, XML characters escaped. */
int kd_moses_tokenise(const struct kd_moses *m, const char *text, int64_t len,
                      struct kd_str *out) KD_MUST_CHECK;
/** Text of the words in WORDS[len], which white space separates. */
int kd_moses_detokenise(const struct kd_moses *m, const char *words, int64_t len,
                        struct kd_str *out) KD_MUST_CHECK;

/** Refuse numbers of made-up tokens that no tokenizer has. */
int kd_check_counts(const struct kd_json *config) KD_MUST_CHECK;
/** Pegasus: how many ids come before the model's, and the mask token of sentences
 * (NULL: none). */
int64_t kd_pegasus_offset(const struct kd_json *config);
const char *kd_pegasus_mask_sent(const struct kd_json *config);

/** What a directory says beside the model file; any may be NULL but CONFIG. */
struct kd_side_files {
    struct kd_json *config;       /* tokenizer_config.json */
    struct kd_json *model_config; /* config.json */
    struct kd_json *map;          /* special_tokens_map.json */
    struct kd_json *added;        /* added_tokens.json */
};

/** Add the tokens that the side files or the class name, and set the special ids. */
int kd_special_read(struct kd_tokenizer *t, enum kd_layout layout,
                    const struct kd_side_files *files) KD_MUST_CHECK;

/** Set the special tokens around a sequence as the class of LAYOUT does. */
int kd_affix_set(struct kd_tokenizer *t, enum kd_layout layout,
                 const struct kd_json *config) KD_MUST_CHECK;

/** Code I of the languages of LAYOUT into OUT; 0 when there are no more. */
int kd_lang_code(enum kd_layout layout, int i, char out[6]);

/** Flags of an added token as JSON writes them. */
struct kd_added_token kd_added_flags(const struct kd_json *j);

/** Append a step to the normalisation, PATTERN and CONTENT (may be NULL) copied. */
int kd_norm_add(struct kd_tokenizer *t, enum kd_norm_kind kind, const char *pattern,
                const char *content) KD_MUST_CHECK;

/** A SentencePiece model file, read. */
struct kd_spm {
    int64_t n;
    int64_t *at; /* [n + 1] pieces in BYTES */
    char *bytes;
    float *score;
    unsigned char *kind; /* enum kd_spm_kind */
    char *charsmap;
    int64_t charsmap_len;
    int model_type; /* 1 unigram, 2 BPE */
    int unk_id;
    bool suffix_space; /* the space goes after a word */
    bool dummy_prefix, tidy_space, escape_space;
};

enum kd_spm_kind { KD_SPM_NORMAL = 1, KD_SPM_UNKNOWN, KD_SPM_CONTROL, KD_SPM_USER };

#ifdef __cplusplus
extern "C" {
#endif
int kd_spm_read(const char *path, struct kd_spm *out) KD_MUST_CHECK;
void kd_spm_free(struct kd_spm *m);

/** The library's own encoding and decoding; thread-safe. */
int kd_spm_open(const char *path, struct kd_spm_processor **out) KD_MUST_CHECK;
void kd_spm_close(struct kd_spm_processor *p);
/** What ends a piece: a byte that no UTF-8 has, as text may hold NUL. */
#define KD_PIECE_END "\xFF"
/** Append the pieces of TEXT[len], KD_PIECE_END after each. */
int kd_spm_encode(const struct kd_spm_processor *p, const char *text, int64_t len,
                  struct kd_str *out) KD_MUST_CHECK;
/** Append the text of PIECES[len], a NUL after each. */
int kd_spm_decode(const struct kd_spm_processor *p, const char *pieces, int64_t len,
                  struct kd_str *out) KD_MUST_CHECK;
#ifdef __cplusplus
}
#endif

#endif
