# SPDX-License-Identifier: Apache-2.0
# Every family and every way of storing weights, through the program and back into transformers.  Skipped without it;
# KDHPC_TEST_PYTHON names another interpreter than python3.
. "$(dirname "$0")/python.sh"
needs transformers torch safetensors
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
"$python" "$KD_SOURCE_DIR/tests/live/readback_families.py" "$KDHPC" "$KD_SOURCE_DIR/tests/golden" ||
    fail "what was written reads differently"
