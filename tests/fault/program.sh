# SPDX-License-Identifier: Apache-2.0
# A failure of one rank while the program starts ends all ranks with one line that names it.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1

KD_FAULT=program.output_dir:0 kd_alone --mode score --model m --corpus c --output_dir run
if ! grep -q "fault at" err.txt; then
    echo "skipped: this build has no fault sites"
    exit 77
fi
for site in program.output_dir:0 program.backend:0 program.backend:1 program.backend:2; do
    export KD_FAULT=$site
    kd_ranks 3 --mode score --model m --corpus c --output_dir run
    expect_error 70 "fault at ${site%:*}"
    case $site in
    *:0) expect_no_text err.txt "rank 0: fault" ;;
    *) expect_text err.txt "kdhpc: error: rank ${site#*:}: " ;;
    esac
done
