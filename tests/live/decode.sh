# SPDX-License-Identifier: Apache-2.0
# Outputs of an installed transformers for many random sources against ours: $1 is the test that reads golden beams.
# KDHPC_TEST_PYTHON names another interpreter than python3; KD_LIVE_MODELS some of the fixtures, KD_LIVE_SOURCES how many
# sources a setting has.
python=${KDHPC_TEST_PYTHON:-python3}
if ! "$python" -c "
from importlib.util import find_spec
assert all(find_spec(m) for m in ('transformers', 'torch', 'safetensors'))" 2>/dev/null; then
    echo "skipped: $python lacks transformers, torch or safetensors (KDHPC_TEST_PYTHON names another interpreter)"
    exit 77
fi
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
"$python" "$(dirname "$0")/decode_beams.py" "$dir" "${KD_LIVE_SOURCES:-200}" $KD_LIVE_MODELS || exit 1
KD_TEST_BEAMS=$dir "$1"
