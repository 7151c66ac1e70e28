# SPDX-License-Identifier: Apache-2.0
# Outputs of an installed transformers for many random sources against ours: $1 is the test that reads golden beams.
# KDHPC_TEST_PYTHON names another interpreter than python3; KD_LIVE_MODELS some of the fixtures, KD_LIVE_SOURCES how many
# sources a setting has.
. "$(dirname "$0")/python.sh"
needs transformers torch safetensors
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
"$python" "$(dirname "$0")/decode_beams.py" "$dir" "${KD_LIVE_SOURCES:-200}" $KD_LIVE_MODELS || exit 1
KD_TEST_BEAMS=$dir "$1"
