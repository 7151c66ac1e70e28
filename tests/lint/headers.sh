# SPDX-License-Identifier: Apache-2.0
# Every public header compiles alone, in C11, and guards itself by its path.
set -euo pipefail
cd "${KD_SOURCE_DIR:?}"
flags=(-std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -fsyntax-only -Iinclude)
IFS=';' read -ra mpi <<<"${KD_MPI_INCLUDES:-}"
for dir in "${mpi[@]}"; do
    flags+=(-isystem "$dir")
done
bad=0
while read -r header; do
    guard=$(echo "${header#include/}" | tr 'a-z/.' 'A-Z__')
    grep -q "^#ifndef $guard\$" "$header" || { echo "$header: the guard is not $guard"; bad=1; }
    printf '#include "%s"\n' "${header#include/}" | "${CC:-cc}" "${flags[@]}" -x c - || { echo "$header"; bad=1; }
done < <(find include -name '*.h' | sort)
exit $bad
