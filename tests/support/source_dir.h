/* SPDX-License-Identifier: Apache-2.0 */
/* Where a test finds its fixtures: in the checkout that it was built from, or, on a
 * machine that has only the programs and the fixtures, where the environment's
 * KD_SOURCE_DIR says they are. */
#ifndef KDHPC_TESTS_SOURCE_DIR_H
#define KDHPC_TESTS_SOURCE_DIR_H

#include <stdlib.h>

/** The root under which tests/golden lies. */
static inline const char *kd_test_source_dir(void)
{
    const char *dir = getenv("KD_SOURCE_DIR");

    return dir ? dir : KD_SOURCE_DIR;
}

#endif
