/* SPDX-License-Identifier: Apache-2.0 */
/* The schedule of ragged attention: whatever the lengths, every row is in exactly one
 * tile, slots left over are few, and bounds of causal tiles leave out only what nobody
 * sees. */
#include "attention_schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = 200 };

/* The owner of SLOT as a block finds it: the last sequence whose first slot is not
 * behind it. */
static int64_t owner(const struct kd_seqs *s, int tile, int64_t slot)
{
    int64_t seq = s->n - 1;

    if (attention_one_tile(s, tile))
        return slot;
    while (attention_slot(s->offsets[seq], seq, tile) > slot)
        seq--;
    return seq;
}

static void check_cover(const struct kd_seqs *s, int tile)
{
    int64_t slots = attention_slots(s, tile), tiles = 0, left_over = 0;
    char *seen = calloc((size_t)s->n_rows + 1, 1);

    assert_non_null(seen);
    for (int64_t slot = 0; slot < slots; slot++) {
        int64_t seq = owner(s, tile, slot), begin = s->offsets[seq],
                first = attention_one_tile(s, tile)
                            ? 0
                            : (slot - attention_slot(begin, seq, tile)) * tile,
                len = s->offsets[seq + 1] - begin;

        assert_true(first >= 0);
        left_over += first >= len;
        tiles += first < len;
        for (int64_t r = first; r < first + tile && r < len; r++)
            seen[begin + r]++;
    }
    for (int64_t r = 0; r < s->n_rows; r++)
        assert_int_equal(seen[r], 1);
    assert_int_equal(tiles + left_over, slots);
    assert_true(left_over <= s->n);
    free(seen);
}

static void every_row_once(void **state)
{
    static const int tiles[] = {16, 64, 128};
    int64_t offsets[MOST + 1];

    (void)state;
    srand(11);
    for (int round = 0; round < 300; round++) {
        struct kd_seqs s = {.n = 1 + rand() % MOST, .offsets = offsets};
        int longest = 1 + rand() % 400;

        offsets[0] = 0;
        for (int64_t i = 0; i < s.n; i++) {
            int64_t len = rand() % 4 ? rand() % longest : rand() % 5 / 4 * longest;

            offsets[i + 1] = offsets[i] + len;
            s.max_len = len > s.max_len ? len : s.max_len;
        }
        s.n_rows = offsets[s.n];
        for (int i = 0; i < 3; i++)
            check_cover(&s, tiles[i]);
    }
}

/* Rows beyond 32 bits: the search finds them, slots still fit a grid. */
static void far_rows(void **state)
{
    const int64_t offsets[] = {0, 5000000000, 5000000001, 5000000130, 5000000130};
    const struct kd_seqs s = {
        .n = 4, .n_rows = 5000000130, .max_len = 5000000000, .offsets = offsets};
    int64_t first = attention_slot(offsets[2], 2, 64);

    (void)state;
    assert_int_equal(first, 5000000001 / 64 + 2);
    assert_int_equal(owner(&s, 64, first - 1), 1);
    for (int64_t slot = first; slot < first + 3; slot++) /* 129 rows */
        assert_int_equal(owner(&s, 64, slot), 2);
    assert_true(attention_slots(&s, 64) < INT32_MAX);
}

static void causal_bounds(void **state)
{
    (void)state;
    for (int n_keys = 0; n_keys < 70; n_keys += 3) {
        for (int first = 0; first < 80; first += 16) {
            /* the last of 16 rows sees keys up to its own position */
            int end = attention_keys_end(true, first, 16, n_keys);

            assert_int_equal(end, n_keys < first + 16 ? n_keys : first + 16);
            assert_int_equal(attention_keys_end(false, first, 16, n_keys), n_keys);
        }
    }
    for (int key = 0; key < 200; key++) {
        int begin = attention_queries_begin(true, key, 32);

        assert_int_equal(begin % 32, 0);
        assert_true(begin <= key && key < begin + 32);
        assert_int_equal(attention_queries_begin(false, key, 32), 0);
    }
}

static void wide_tiles(void **state)
{
    struct kd_seqs longer = {.n = 10, .n_rows = 5120, .max_len = 512},
                   shorter = {.n = 100, .n_rows = 5120, .max_len = 512};

    (void)state;
    assert_true(attention_wide_pays(&longer, 128, 16, 132));
    assert_false(attention_wide_pays(&shorter, 128, 16, 132)); /* 51 rows each */
    assert_false(attention_wide_pays(&longer, 128, 4, 132));   /* 160 blocks */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_once),
        cmocka_unit_test(far_rows),
        cmocka_unit_test(causal_bounds),
        cmocka_unit_test(wide_tiles),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
