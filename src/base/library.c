/* SPDX-License-Identifier: Apache-2.0 */
/* Opening shared libraries at run time.  Whoever wants one has a struct of function
 * pointers and a row of symbols for each of them; what is said when it is not there is
 * the caller's. */
#include "kdhpc/base/library.h"

#include <dlfcn.h>
#include <string.h>

bool kd_library_load(const char *const *places, size_t n_places,
                     const struct kd_symbol *symbols, size_t n_symbols, void *table,
                     const char **missing)
{
    void *library = NULL;

    *missing = NULL;
    for (size_t i = 0; !library && i < n_places; i++)
        library = dlopen(places[i], RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return false;
    for (size_t i = 0; i < n_symbols; i++) {
        void *symbol = dlsym(library, symbols[i].name);

        if (!symbol) {
            *missing = symbols[i].name;
            dlclose(library);
            return false;
        }
        memcpy((char *)table + symbols[i].at, &symbol, sizeof symbol);
    }
    return true;
}
