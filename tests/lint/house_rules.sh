# SPDX-License-Identifier: Apache-2.0
# What the style asks of every file: a licence line, a size that can be read, none of the calls that invite overflow,
# no notes to self, and an essay at the head of each C file.
set -euo pipefail
cd "${KD_SOURCE_DIR:?}"
bad=0
limit=700

complain() {
    echo "$*"
    bad=1
}

all_files() {
    find src include tests jobs inputs .ci -type f \( -name '*.[ch]' -o -name '*.cc' -o -name '*.cu' -o -name '*.sh' -o -name '*.py' \
        -o -name '*.sbatch' -o -name CMakeLists.txt -o -name '*.cmake' -o -path '.ci/*' \) -print0
    printf 'CMakeLists.txt\0'
}

c_files() {
    find "$@" -type f \( -name '*.[ch]' -o -name '*.cc' -o -name '*.cu' \) -print0
}

all_files | xargs -0 awk -v limit=$limit '
    function finish() {
        if (file && !spdx) { print file ": no SPDX line"; bad = 1 }
        if (lines > limit) { print file ": " lines " lines, more than " limit; bad = 1 }
    }
    FNR == 1 { finish(); file = FILENAME; spdx = 0 }
    FNR <= 2 && /SPDX-License-Identifier: Apache-2.0/ { spdx = 1 }
    { lines = FNR }
    END { finish(); exit bad }' || bad=1
c_files src include | xargs -0 awk '
    FNR == 2 && !/^\/\*/ { print FILENAME ": line 2 does not begin to say what the file is for"; bad = 1 }
    END { exit bad }' || bad=1

forbidden='\b(sprintf|vsprintf|strcpy|strcat|strtok|atoi|atol|atof|alloca|gets)[[:space:]]*\('
if c_files src include | xargs -0 grep -nE "$forbidden"; then
    complain "calls that the house style forbids"
fi
if c_files src include tests | xargs -0 grep -nE '\b(TODO|FIXME|XXX)\b'; then
    complain "notes to self"
fi
for path in *; do
    case $path in
    src | include | jobs | inputs | tests | CMakeLists.txt | README.md | LICENSE) ;;
    build* | run*) ;; # ignored by git
    *) complain "$path: not in the agreed top level" ;;
    esac
done
exit $bad
