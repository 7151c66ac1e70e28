# SPDX-License-Identifier: Apache-2.0
# Every type of tokenizer against transformers, live, and random chains of components.  Skipped without it;
# KDHPC_TEST_PYTHON names another interpreter than python3.  KDHPC_TEST_TEXT, files of real text with spaces between,
# makes it thorough.
. "$(dirname "$0")/python.sh"
needs transformers tokenizers sentencepiece sacremoses
. "${KD_LIB:?tests/support/lib.sh}" || exit 1

args="--random 100"
if [ -n "${KDHPC_TEST_TEXT:-}" ]; then
    args=$(texts)
fi
"$python" "$KD_SOURCE_DIR/tests/live/tokenizer_types.py" "${KD_PROBE:?tests/support/tokenizer_probe}" work $args >log.txt 2>&1 || {
    code=$?
    cat log.txt
    exit $code
}
tail -3 log.txt
"$python" "$KD_SOURCE_DIR/tests/live/tokenizer_chains.py" "$KD_PROBE" chains 2>/dev/null || fail "chains differ"
