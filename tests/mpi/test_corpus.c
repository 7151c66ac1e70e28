/* SPDX-License-Identifier: Apache-2.0 */
/* Corpora written by any number of ranks: every row comes back, the content digest is
 * one constant (computed once by other tools), and files with a fault are refused with
 * the fault's name. */
#include "kdhpc/store/corpus.h"
#include "kdhpc/store/h5.h"
#include "kdhpc/store/listing.h"

#include "mpi_test.h"

#include <fcntl.h>
#include <sys/stat.h>

enum { ROWS = 23, ROW_MAX = 40 };

static struct kd_comm *comm;
static char dir[64];

static char *path_of(const char *name)
{
    static char path[128];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

/* ---- the corpus as a function of the row ---- */

static int64_t length_of(int field, int64_t row)
{
    return (row * 7 + field * 5) % (field < 2 ? 11 : 17); /* some rows are empty */
}

static int32_t value_of(int field, int64_t row, int64_t k)
{
    return field < 2 ? (int32_t)((row * 131 + k * 17 + field) % 1000)
                     : (int32_t)('a' + (row + k) % 26);
}

static int32_t largest(int field)
{
    int32_t max = -1;

    for (int64_t row = 0; row < ROWS; row++)
        for (int64_t k = 0; k < length_of(field, row); k++)
            if (value_of(field, row, k) > max)
                max = value_of(field, row, k);
    return max;
}

struct rows {
    int64_t offsets[4][ROWS + 1], id[ROWS];
    int32_t ids[2][ROWS * ROW_MAX];
    unsigned char text[2][ROWS * ROW_MAX];
    struct kd_corpus_rows view;
};

static void make_rows(struct rows *r, int64_t first, int64_t n)
{
    struct kd_ragged *ragged[4] = {&r->view.source, &r->view.target,
                                   &r->view.source_text, &r->view.target_text};

    r->view.n = n;
    r->view.id = r->id;
    for (int64_t i = 0; i < n; i++)
        r->id[i] = 1000 + first + i;
    for (int f = 0; f < 4; f++) {
        r->offsets[f][0] = 0;
        for (int64_t i = 0; i < n; i++) {
            int64_t at = r->offsets[f][i], len = length_of(f, first + i);

            for (int64_t k = 0; k < len; k++) {
                int32_t v = value_of(f, first + i, k);

                if (f < 2)
                    r->ids[f][at + k] = v;
                else
                    r->text[f - 2][at + k] = (unsigned char)v;
            }
            r->offsets[f][i + 1] = at + len;
        }
        *ragged[f] = (struct kd_ragged){n, r->offsets[f],
                                        f < 2 ? (const void *)r->ids[f]
                                              : (const void *)r->text[f - 2]};
    }
}

/* Uneven shares; the middle rank of three has no rows. */
static int64_t share_begin(int rank, int size)
{
    static const int64_t three[] = {0, 17, 17, ROWS};

    return size == 3 ? three[rank] : ROWS * rank / size;
}

static const struct kd_store_meta meta = {.schema = "kdhpc.corpus",
                                          .options = "mode: tokenize\n",
                                          .parents = "{\"tokenizer\":\"ab\"}",
                                          .tokenizer_digest = "ab",
                                          .vocab_size = 1000};

static void write_corpus(const char *path, const struct kd_store_meta *m)
{
    static struct rows rows;
    struct kd_corpus_writer *w = NULL;
    int rank = kd_comm_rank(comm), size = kd_comm_size(comm);
    int64_t begin = share_begin(rank, size);

    assert_ok(kd_corpus_create(comm, path, m, &w));
    make_rows(&rows, begin, share_begin(rank + 1, size) - begin);
    assert_ok(kd_corpus_write_split(w, "train", &rows.view));
    make_rows(&rows, 0, 0);
    assert_ok(kd_corpus_write_split(w, "test", &rows.view));
    assert_ok(kd_corpus_commit(w));
}

static void check_row(const struct kd_corpus *c, int64_t i, int64_t row)
{
    const char *text[2];
    const int32_t *ids[2];
    int64_t n[4];

    ids[0] = kd_corpus_source(c, i, &n[0]);
    ids[1] = kd_corpus_target(c, i, &n[1]);
    text[0] = kd_corpus_source_text(c, i, &n[2]);
    text[1] = kd_corpus_target_text(c, i, &n[3]);
    assert_int_equal(kd_corpus_id(c, i), 1000 + row);
    for (int f = 0; f < 4; f++) {
        assert_int_equal(n[f], length_of(f, row));
        for (int64_t k = 0; k < n[f]; k++)
            assert_int_equal(f < 2 ? ids[f][k] : text[f - 2][k], value_of(f, row, k));
    }
}

static void rows_come_back(void **state)
{
    char a[128], b[128], *paths[2] = {a, b};
    struct kd_corpus *c = NULL;

    (void)state;
    strcpy(a, path_of("a.h5"));
    strcpy(b, path_of("b.h5"));
    write_corpus(a, &meta);
    write_corpus(b, &meta);
    assert_ok(kd_corpus_open(comm, paths, 2, "train", &c));
    assert_int_equal(kd_corpus_size(c), 2 * ROWS);
    assert_int_equal(kd_corpus_vocab_size(c), 1000);
    assert_string_equal(kd_corpus_tokenizer_digest(c), "ab");
    assert_string_equal(kd_corpus_digest(c, 0), kd_corpus_digest(c, 1));
    for (int64_t i = 0; i < 2 * ROWS; i++)
        check_row(c, i, i % ROWS);
    assert_int_equal(kd_corpus_max_source(c), largest(0));
    assert_int_equal(kd_corpus_max_target(c), largest(1));
    assert_int_not_equal(largest(0), largest(1));
    kd_corpus_close(c);

    assert_ok(kd_corpus_open(comm, paths, 1, "test", &c));
    assert_int_equal(kd_corpus_size(c), 0);
    assert_int_equal(kd_corpus_max_source(c), -1);
    assert_int_equal(kd_corpus_max_target(c), -1);
    kd_corpus_close(c);
    assert_int_not_equal(access(path_of("a.h5.part"), F_OK), 0);
}

static void content_does_not_depend_on_the_ranks(void **state)
{
    struct kd_store_listing l;

    (void)state;
    assert_ok(kd_store_list(path_of("a.h5"), true, &l));
    assert_string_equal(l.digest, "bab3b0ec08fc3d47");
    assert_string_equal(l.schema, "kdhpc.corpus");
    assert_int_equal(l.n, 2 * 9 + 1);
    kd_store_listing_free(&l);
}

/* Rows of UNIT bytes handed over through a buffer of its own, a few at a time. */
struct trickle {
    const char *rows;
    size_t unit;
    char buffer[5 * 8];
};

static int read_trickle(void *arg, int64_t at, int64_t n, const void **out)
{
    struct trickle *t = arg;

    assert_in_range(n, 1, 5);
    memset(t->buffer, 0x55, sizeof t->buffer);
    memcpy(t->buffer, t->rows + (size_t)at * t->unit, (size_t)n * t->unit);
    *out = t->buffer;
    return KD_OK;
}

static struct kd_h5_values trickle(struct trickle *t, const void *rows, size_t unit,
                                   int64_t n)
{
    *t = (struct trickle){.rows = rows, .unit = unit};
    return (struct kd_h5_values){n, 5, read_trickle, t};
}

/* Written piece by piece, with more pieces on some ranks, the content is the same; an
 * id outside the vocabulary in a late piece of one rank fails on all. */
static void streams_give_the_same_content(void **state)
{
    static struct rows rows;
    int rank = kd_comm_rank(comm), size = kd_comm_size(comm);
    int64_t begin = share_begin(rank, size), n = share_begin(rank + 1, size) - begin;
    char a[128], b[128], *paths[2] = {a, b};
    struct trickle t[9];
    struct kd_corpus_stream s;
    struct kd_corpus_writer *w = NULL;
    struct kd_corpus *c = NULL;

    (void)state;
    strcpy(a, path_of("a.h5"));
    strcpy(b, path_of("stream.h5"));
    make_rows(&rows, begin, n);
    s.id = trickle(&t[0], rows.id, 8, n);
    s.source.starts = trickle(&t[1], rows.offsets[0], 8, n);
    s.source.values = trickle(&t[2], rows.ids[0], 4, rows.offsets[0][n]);
    s.target.starts = trickle(&t[3], rows.offsets[1], 8, n);
    s.target.values = trickle(&t[4], rows.ids[1], 4, rows.offsets[1][n]);
    s.source_text.starts = trickle(&t[5], rows.offsets[2], 8, n);
    s.source_text.values = trickle(&t[6], rows.text[0], 1, rows.offsets[2][n]);
    s.target_text.starts = trickle(&t[7], rows.offsets[3], 8, n);
    s.target_text.values = trickle(&t[8], rows.text[1], 1, rows.offsets[3][n]);
    assert_ok(kd_corpus_create(comm, b, &meta, &w));
    assert_ok(kd_corpus_write_stream(w, "train", &s));
    make_rows(&rows, 0, 0);
    assert_ok(kd_corpus_write_split(w, "test", &rows.view));
    assert_ok(kd_corpus_commit(w));
    assert_ok(kd_corpus_open(comm, paths, 2, "train", &c));
    assert_string_equal(kd_corpus_digest(c, 0), kd_corpus_digest(c, 1));
    kd_corpus_close(c);

    make_rows(&rows, begin, n);
    if (rank == 0)
        rows.ids[1][rows.offsets[1][n] - 1] = 1000;
    assert_ok(kd_corpus_create(comm, path_of("stream2.h5"), &meta, &w));
    assert_int_equal(kd_corpus_write_stream(w, "train", &s), KD_EINTERNAL);
    kd_corpus_abandon(w);
    kd_error_clear();
}

static void has_split_answers(void **state)
{
    char a[128], gone[128], *paths[2] = {a, gone};
    bool has;

    (void)state;
    strcpy(a, path_of("a.h5"));
    strcpy(gone, path_of("gone.h5"));
    assert_ok(kd_corpus_has_split(comm, paths, 1, "train", &has));
    assert_true(has);
    assert_ok(kd_corpus_has_split(comm, paths, 1, "val", &has));
    assert_false(has);
    assert_ok(kd_corpus_has_split(comm, paths, 2, "train", &has));
    assert_false(has);
    assert_int_equal(kd_error_get()->code, KD_OK);
}

/* ---- refusals ---- */

static void refused(char *path, const char *split, const char *word)
{
    struct kd_corpus *c = NULL;

    assert_int_equal(kd_corpus_open(comm, &path, 1, split, &c), KD_EINPUT);
    assert_null(c);
    if (!strstr(kd_error_get()->text, word))
        print_error("'%s' not in: %s\n", word, kd_error_get()->text);
    assert_non_null(strstr(kd_error_get()->text, word));
    kd_error_clear();
}

static void absent_things_are_named(void **state)
{
    (void)state;
    refused(path_of("gone.h5"), "train", "No such file");
    refused(path_of("a.h5"), "val", "test, train");
}

/* Copy a.h5 to NAME, then let EDIT change the bytes. */
static char *edited(const char *name, void (*edit)(char *bytes, long n, FILE *out))
{
    char *path;

    if (kd_comm_rank(comm) == 0) {
        FILE *in = fopen(path_of("a.h5"), "rb"), *out = fopen(path_of(name), "wb");
        char *bytes;
        long n;

        assert_true(in && out);
        fseek(in, 0, SEEK_END);
        n = ftell(in);
        rewind(in);
        bytes = malloc((size_t)n);
        assert_non_null(bytes);
        assert_int_equal(fread(bytes, 1, (size_t)n, in), n);
        edit(bytes, n, out);
        fclose(in);
        fclose(out);
        free(bytes);
    }
    assert_ok(kd_barrier(comm));
    path = path_of(name);
    return path;
}

static void cut_in_half(char *bytes, long n, FILE *out)
{
    assert_int_equal(fwrite(bytes, 1, (size_t)n / 2, out), n / 2);
}

static void no_hdf5(char *bytes, long n, FILE *out)
{
    bytes[1] ^= 1;
    assert_int_equal(fwrite(bytes, 1, (size_t)n, out), n);
}

/* Flip a bit of the only place with the source text of row 3. */
static void flip_text(char *bytes, long n, FILE *out)
{
    char want[ROW_MAX];
    int64_t len = length_of(2, 3);
    char *at;

    for (int64_t k = 0; k < len; k++)
        want[k] = (char)value_of(2, 3, k);
    at = memmem(bytes, (size_t)n, want, (size_t)len);
    assert_non_null(at);
    at[1] ^= 1;
    assert_int_equal(fwrite(bytes, 1, (size_t)n, out), n);
}

static void damaged_files_are_refused(void **state)
{
    struct kd_store_listing l;

    (void)state;
    refused(edited("cut.h5", cut_in_half), "train", "cut.h5");
    refused(edited("junk.h5", no_hdf5), "train", "not a whole HDF5 file");
    assert_int_equal(kd_store_list(edited("flip.h5", flip_text), true, &l), KD_EINPUT);
    assert_non_null(strstr(kd_error_get()->text, "train/source_text/values"));
    kd_error_clear();
    assert_ok(kd_store_list(path_of("flip.h5"), false, &l));
    kd_store_listing_free(&l);
}

/* A file written dataset by dataset, so that it can be wrong. */
struct wrong {
    const char *schema;
    int64_t version, n_ids;
    int64_t offsets[4];
    int32_t value;
};

static char *write_wrong(const struct wrong *x)
{
    static const char *const fields[] = {"source", "target", "source_text",
                                         "target_text"};
    int64_t id[3] = {0, 1, 2}, fine[4] = {0, 1, 2, 3};
    int32_t values[3] = {1, x->value, 3};
    bool root = kd_comm_rank(comm) == 0;
    struct kd_h5 *f = NULL;
    char name[64];

    assert_ok(kd_h5_create(comm, path_of("wrong.h5"), &f));
    assert_ok(kd_h5_set_attr(f, "schema", x->schema));
    assert_ok(kd_h5_set_attr_i64(f, "schema_version", x->version));
    assert_ok(kd_h5_set_attr(f, "tokenizer_digest", ""));
    assert_ok(kd_h5_set_attr_i64(f, "vocab_size", 100));
    assert_ok(kd_h5_write(f, "train/id", KD_I64, id, root ? x->n_ids : 0, 1));
    for (int k = 0; k < 4; k++) {
        snprintf(name, sizeof name, "train/%s/offsets", fields[k]);
        assert_ok(
            kd_h5_write(f, name, KD_I64, k == 1 ? x->offsets : fine, root ? 4 : 0, 1));
        snprintf(name, sizeof name, "train/%s/values", fields[k]);
        assert_ok(
            kd_h5_write(f, name, k < 2 ? KD_I32 : KD_U8, values, root ? 3 : 0, 1));
    }
    assert_ok(kd_h5_commit(f));
    return path_of("wrong.h5");
}

static void contradictory_files_are_refused(void **state)
{
    static const struct wrong good = {"kdhpc.labels", 1, 3, {0, 1, 2, 3}, 2};
    struct wrong x = good;
    struct kd_corpus *c = NULL;
    char *path = write_wrong(&x);

    (void)state;
    assert_ok(kd_corpus_open(comm, &path, 1, "train", &c));
    kd_corpus_close(c);
    x.schema = "kdhpc.checkpoint";
    refused(write_wrong(&x), "train", "not a corpus");
    x = good;
    x.version = 2;
    refused(write_wrong(&x), "train", "version 2");
    x = good;
    x.n_ids = 2;
    refused(write_wrong(&x), "train", "4 offsets for 2 rows");
    x = good;
    x.offsets[0] = 1;
    refused(write_wrong(&x), "train", "run from 1");
    x = good;
    x.offsets[3] = 4;
    refused(write_wrong(&x), "train", "to 4 over 3 values");
    x = good;
    x.offsets[1] = 3;
    refused(write_wrong(&x), "train", "not monotone");
    x = good;
    x.offsets[2] = -5;
    refused(write_wrong(&x), "train", "not monotone");
    x = good;
    x.value = 100;
    refused(write_wrong(&x), "train", "id 100");
    x = good;
    x.value = -1;
    refused(write_wrong(&x), "train", "id -1");
}

static void tokenizers_must_agree(void **state)
{
    struct kd_store_meta other = meta;
    char a[128], b[128], *paths[2] = {a, b};
    struct kd_corpus *c = NULL;

    (void)state;
    other.tokenizer_digest = "cd";
    strcpy(a, path_of("a.h5"));
    strcpy(b, path_of("other.h5"));
    write_corpus(b, &other);
    assert_int_equal(kd_corpus_open(comm, paths, 2, "train", &c), KD_EINPUT);
    assert_non_null(strstr(kd_error_get()->text, "another tokenizer"));
    kd_error_clear();
}

static void a_place_without_access_is_an_output_error(void **state)
{
    struct kd_corpus_writer *w = NULL;

    (void)state;
    assert_int_equal(kd_corpus_create(comm, path_of("no/such/c.h5"), &meta, &w),
                     KD_EOUTPUT);
    assert_null(w);
    kd_error_clear();
}

static void bad_rows_on_one_rank_fail_alike(void **state)
{
    static struct rows rows;
    struct kd_corpus_writer *w = NULL;

    (void)state;
    assert_ok(kd_corpus_create(comm, path_of("bad.h5"), &meta, &w));
    make_rows(&rows, 0, 4);
    if (kd_comm_rank(comm) == kd_comm_size(comm) - 1)
        rows.ids[1][2] = 1000;
    assert_int_equal(kd_corpus_write_split(w, "train", &rows.view), KD_EINTERNAL);
    kd_error_clear();
    kd_corpus_abandon(w);
    assert_ok(kd_barrier(comm));
    assert_int_not_equal(access(path_of("bad.h5.part"), F_OK), 0);
    assert_int_not_equal(access(path_of("bad.h5"), F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_come_back),
        cmocka_unit_test(content_does_not_depend_on_the_ranks),
        cmocka_unit_test(streams_give_the_same_content),
        cmocka_unit_test(has_split_answers),
        cmocka_unit_test(absent_things_are_named),
        cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(contradictory_files_are_refused),
        cmocka_unit_test(tokenizers_must_agree),
        cmocka_unit_test(a_place_without_access_is_an_output_error),
        cmocka_unit_test(bad_rows_on_one_rank_fail_alike),
    };
    int failed;

    comm = mpi_test_start_in(dir, sizeof dir);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    mpi_test_stop_in(comm, dir);
    return failed;
}
