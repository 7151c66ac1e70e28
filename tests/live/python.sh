# SPDX-License-Identifier: Apache-2.0
# Sourced by live tests: needs MODULE... leaves in $python an interpreter that has these modules (python3, or the one
# that KDHPC_TEST_PYTHON names), or ends the test as skipped; texts OPTIONS prints OPTIONS and --text FILE for each file
# of KDHPC_TEST_TEXT.
needs() {
    python=${KDHPC_TEST_PYTHON:-python3}
    "$python" - "$@" 2>/dev/null <<'P' && return
import sys
from importlib.util import find_spec
sys.exit(not all(find_spec(module) for module in sys.argv[1:]))
P
    echo "skipped: $python lacks one of $* (KDHPC_TEST_PYTHON names another interpreter)"
    exit 77
}

texts() {
    printf '%s ' "$@"
    printf -- '--text %s ' $KDHPC_TEST_TEXT
}
