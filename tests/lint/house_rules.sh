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

while read -r file; do
    head -n 2 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0' || complain "$file: no SPDX line"
    lines=$(wc -l <"$file")
    [ "$lines" -le $limit ] || complain "$file: $lines lines, more than $limit"
done < <(
    find src include tests jobs inputs .ci -type f \( -name '*.[ch]' -o -name '*.cc' -o -name '*.sh' -o -name '*.py' \
        -o -name '*.sbatch' -o -name CMakeLists.txt -o -name '*.cmake' -o -path '.ci/*' \)
    echo CMakeLists.txt
)

while read -r file; do
    sed -n 2p "$file" | grep -q '^/\*' || complain "$file: line 2 does not begin to say what the file is for"
done < <(find src include -type f \( -name '*.[ch]' -o -name '*.cc' \))

forbidden='\b(sprintf|vsprintf|strcpy|strcat|strtok|atoi|atol|atof|alloca|gets)[[:space:]]*\('
if find src include -type f \( -name '*.[ch]' -o -name '*.cc' \) -print0 | xargs -0 grep -nE "$forbidden"; then
    complain "calls that the house style forbids"
fi
if find src include tests -type f \( -name '*.[ch]' -o -name '*.cc' \) -print0 |
    xargs -0 grep -nE '\b(TODO|FIXME|XXX)\b'; then
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
