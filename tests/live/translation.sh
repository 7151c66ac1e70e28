# SPDX-License-Identifier: Apache-2.0
# BLEU, chrF and TER against sacrebleu, live.  Skipped without it; KDHPC_TEST_PYTHON names another interpreter than
# python3.  KDHPC_TEST_TEXT, files of real text with spaces between, makes it thorough.
. "$(dirname "$0")/python.sh"
needs sacrebleu h5py tokenizers sentencepiece
. "${KD_LIB:?tests/support/lib.sh}" || exit 1

args=""
if [ -n "${KDHPC_TEST_TEXT:-}" ]; then
    args=$(texts --rows 1000)
fi
"$python" "$KD_SOURCE_DIR/tests/live/translation.py" "$KDHPC" work $args || fail "sacrebleu says something else"
