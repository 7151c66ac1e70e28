# SPDX-License-Identifier: Apache-2.0
# The tree is as clang-format 14 would have it (other versions differ in details, so they are not asked).
set -euo pipefail
cd "${KD_SOURCE_DIR:?}"
tool=""
for candidate in clang-format-14 clang-format; do
    if "$candidate" --version 2>/dev/null | grep -q 'version 14\.'; then
        tool=$candidate
        break
    fi
done
if [ -z "$tool" ]; then
    echo "skipped: clang-format 14 is not installed"
    exit 77
fi
find src include tests -type f \( -name '*.[ch]' -o -name '*.cc' -o -name '*.cu' \) -print0 | xargs -0 "$tool" --dry-run -Werror
