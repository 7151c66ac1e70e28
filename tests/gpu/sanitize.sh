#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The op tests under compute-sanitizer's four tools; as tests/gpu/run.sh, and with its options:
#   tests/gpu/sanitize.sh --build BUILD_DIR         tests/gpu/sanitize.sh --bundle BUNDLE_DIR
# --sanitize_all takes every test of every program and not only small ones, which takes an hour rather than minutes:
# give it a --budget too.
exec "$(dirname "$0")/run.sh" "$@" --phases sanitize
