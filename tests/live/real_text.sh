# SPDX-License-Identifier: Apache-2.0
# Every family on real text beside transformers (real_text.py).  It takes most of an hour, so it runs only where
# KDHPC_TEST_DATA names a folder with {train,val,test}.{source,target}; KDHPC_TEST_PYTHON names another interpreter than
# python3.
if [ -z "${KDHPC_TEST_DATA:-}" ]; then
    echo "skipped: KDHPC_TEST_DATA names no folder with {train,val,test}.{source,target}"
    exit 77
fi
data=$(realpath "$KDHPC_TEST_DATA")
. "$(dirname "$0")/python.sh"
needs transformers torch h5py sentencepiece tokenizers sacremoses
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
"$python" "$KD_SOURCE_DIR/tests/live/real_text.py" "$KDHPC" "$data" .
