/* SPDX-License-Identifier: Apache-2.0 */
/* Shared libraries that are opened when they are needed, as tables of functions, so
 * that the program starts where they are not. */
#ifndef KDHPC_BASE_LIBRARY_H
#define KDHPC_BASE_LIBRARY_H

#include <stdbool.h>
#include <stddef.h>

/** A function's name in the library, and its pointer's offset in the table. */
struct kd_symbol {
    const char *name;
    size_t at;
};

/** Open the first of PLACES[n_places] (file names as dlopen takes them) that can be,
 * and fill TABLE by SYMBOLS[n_symbols]; the library then stays open.  False: none can
 * be opened (*MISSING NULL), or it has no function *MISSING; it is closed again, and
 * TABLE may be partly filled.  Local. */
bool kd_library_load(const char *const *places, size_t n_places,
                     const struct kd_symbol *symbols, size_t n_symbols, void *table,
                     const char **missing);

#endif
