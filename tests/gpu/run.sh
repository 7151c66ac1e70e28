#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that only a GPU can tell, in one call of a few minutes: every GPU test, ranks that share a GPU, the figures
# of this program beside those of PyTorch, and compute-sanitizer.  On a machine with everything installed:
#   tests/gpu/run.sh --build BUILD_DIR [OPTIONS]
# Elsewhere from what tests/gpu/pack.sh packed:  /tmp/b/run.sh [OPTIONS].  --help lists the options.
# Prints a line for each test and a table at the end, and writes results.json and logs.tar.gz into --out.  A part that fails does not stop
# the others; exit status 1 says that one did, 77 that there is no GPU.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ "${1:-}" = --bundle ]; then
    # shellcheck source=tests/gpu/bundle_environment.sh
    . "${2:?a bundle}/environment.sh" "$2"
fi
exec python3 "$here/suite.py" "$@"
