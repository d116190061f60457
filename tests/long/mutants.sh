#!/usr/bin/env bash
# Changes the code in every place that cargo-mutants knows, one at a time, and asks whether a test
# notices: all of wal-format, then the recovery of the file channel. Hours on a small machine.
#
#   mutants.sh             both
#   mutants.sh --short     the list of changes is not empty (nothing is built)
#   mutants.sh format | recovery [ARGUMENTS OF cargo mutants]
#
# Which changes survive and why is told in docs/MUTANTS.md; results are in target/mutants.
set -euo pipefail
cd "$(dirname "$0")/../.."

if ! cargo mutants --version >/dev/null 2>&1; then
    [ "${1:-}" != --short ] || { echo "cargo-mutants is not installed; the long form needs it"; exit 77; }
    cargo install --locked cargo-mutants
fi

format() { cargo mutants -p wal-format -o target/mutants/format "$@"; }

recovery() {
    cargo mutants -f 'src/channel/file/recovery/*' --features simulation \
        -o target/mutants/recovery "$@" -- --lib channel::file
}

case ${1:-all} in
    --short)
        [ "$(cargo mutants -p wal-format --list | wc -l)" -gt 300 ]
        [ "$(cargo mutants -f 'src/channel/file/recovery/*' --list | wc -l)" -gt 100 ]
        ;;
    all) format && recovery ;;
    format | recovery) "$@" ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
