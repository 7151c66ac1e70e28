# SPDX-License-Identifier: Apache-2.0
# Every family and every way of storing weights, through the program and back into transformers.  Skipped without it;
# KDHPC_TEST_PYTHON names another interpreter than python3.
python=${KDHPC_TEST_PYTHON:-python3}
if ! "$python" -c "
from importlib.util import find_spec
assert all(find_spec(m) for m in ('transformers', 'torch', 'safetensors'))" 2>/dev/null; then
    echo "skipped: $python lacks transformers, torch or safetensors (KDHPC_TEST_PYTHON names another interpreter)"
    exit 77
fi
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
"$python" "$KD_SOURCE_DIR/tests/mode/readback_families.py" "$KDHPC" "$KD_SOURCE_DIR/tests/golden" ||
    fail "what was written reads differently"
