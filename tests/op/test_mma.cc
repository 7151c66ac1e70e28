// SPDX-License-Identifier: Apache-2.0
/* test_mma.cu for the emulator: a source has one language in a directory. */
#include "test_mma.cu"
