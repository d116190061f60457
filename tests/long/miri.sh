#!/usr/bin/env bash
# The codec and the one file with unsafe code, in the interpreter that sees undefined behaviour
# (Miri): reads of what nobody wrote, references over bytes that change, data races, leaks.
#
#   tests/long/miri.sh           all tests of wal-format; the unsafe code under 64 schedules
#   tests/long/miri.sh --short   most of the codec's unit tests; the unsafe code under
#                                4 schedules
#
# Needs nightly, which has the only Miri there is. Where it is missing it is fetched; where it
# cannot be, the long form fails, and the short form is left out (77), which the table of tests/run
# says: nothing but Miri needs nightly, and all these tests run on stable as well.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
short=
[ "${1:-}" = --short ] && short=1

TYPE='rustup toolchain install nightly --profile minimal --component miri --component rust-src'
if ! cargo +nightly miri --version; then
    $TYPE
    if ! cargo +nightly miri --version; then
        echo "no Miri; type:  $TYPE"
        [ -n "$short" ] && exit 77
        exit 1
    fi
fi

seeds=64 which=() but=()
# The scanner looks at every byte of whole segments, and a header is tried with each of its bits
# flipped, which takes the interpreter very long.
[ -n "$short" ] && seeds=4 which=(--lib) but=(-- --skip scan:: --skip a_flip_of_any_bit_is_refused)
# A target directory of its own, so that nobody waits for the lock of another build.
export CARGO_TARGET_DIR=$PWD/target/miri
failed=0

# Stores and views side by side; each seed is another schedule.
MIRIFLAGS="-Zmiri-many-seeds=0..$seeds" \
    cargo +nightly miri test --locked --manifest-path tests/miri/Cargo.toml --lib || failed=1

# The tests read golden files and corpora, so the interpreter lets them.
MIRIFLAGS=-Zmiri-disable-isolation \
    cargo +nightly miri test --locked -p wal-format "${which[@]}" "${but[@]}" || failed=1
exit "$failed"
