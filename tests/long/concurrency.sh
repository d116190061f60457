#!/usr/bin/env bash
# The file channel under a controlled scheduler: tests/concurrency_shuttle, in its own build.
#
#   tests/long/concurrency.sh --short              150 schedules of each test, always the same ones
#   tests/long/concurrency.sh                      20 rounds of 1,000 a test, other ones each round
#   tests/long/concurrency.sh --rounds N --from S  N rounds, the first with seed S
#
# A round's seed is printed: --rounds 1 --from S runs it again. A failure names the file of its
# schedule: FOREBAY_REPLAY=FILE cargo test --features shuttle --test concurrency_shuttle NAME.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2

rounds=20 from=1000 schedules=1000
while [ $# -gt 0 ]; do
    case $1 in
        --short) rounds=1 from=1 schedules=150 ;;
        --rounds) rounds=$2 && shift ;;
        --from) from=$2 && shift ;;
        *) echo "unknown: $1" >&2 && exit 2 ;;
    esac
    shift
done

for ((seed = from; seed < from + rounds; seed++)); do
    echo "round with seed $seed: $schedules schedules a test"
    FOREBAY_SEED=$seed FOREBAY_SCHEDULES=$schedules \
        cargo test --locked --features shuttle --test concurrency_shuttle -- --nocapture || exit 1
done
