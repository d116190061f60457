#!/usr/bin/env bash
# Random histories of the file channel on the simulated disk, crashed everywhere, inside recovery
# too, and held against the specification in tests/model/queue.rs.
#
#   tests/long/crash-model.sh                      a million crashes from seed 0
#   tests/long/crash-model.sh --from 4711 --crashes 5000000 --jobs 2
#   tests/long/crash-model.sh --all 4 --twice 2    every crash of every history of four steps, and
#                                                  of two steps with every crash in every recovery
#   tests/long/crash-model.sh --bytes HEX          one history again, as a failure names it
#   tests/long/crash-model.sh --short              what tests/run does, with what cargo test built
#
# On a violation: seed, step, the history, a shorter one that breaks the same promise, and the
# line to run it again; exit 1.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ "${1:-}" = --short ]; then
    shift
    exec cargo run -q --locked --features simulation --bin crash-model -- \
        --from 100000000 --crashes 20000 "$@"
fi
exec cargo run -q --locked --profile sim --features simulation --bin crash-model -- "$@"
