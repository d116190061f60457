#!/usr/bin/env bash
# Plants every bug of src/planted.rs and wal-format/src/planted.rs, one after the other, runs the
# suite against it and prints who caught it, after how much. Ends with 1 if a bug escapes, or if the
# suite finds something without any bug.
#
#   planted-bugs.sh            every bug against the crash model and against the tests
#   planted-bugs.sh --short    every bug against the one test that caught it in the last long run
#                              (docs/PLANTED.md), and that test without a bug
#   planted-bugs.sh --write    as the long form, and writes what was run into docs/PLANTED.md
#   planted-bugs.sh no-sync watermark-stuck     only these
#
# CRASHES (default 20000) is how many crashes the model gets for a bug, LIMIT (default 300) how many
# seconds model and tests get each at least, PROFILE (default sim) what the model is built with. A
# test that does not come back has noticed as well: it is told as a hang.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
table=docs/PLANTED.md
crashes=${CRASHES:-20000}
limit=${LIMIT:-300}
work=$(mktemp -d)
ended=0 hung=''
trap 'rm -rf "$work"' EXIT

short='' write='' only=()
for word in "$@"; do
    case $word in
        --short) short=1 ;;
        --write) write=1 ;;
        --*) sed -n '2,15s/^# \{0,1\}//p' "$0" && exit 2 ;;
        *) only+=("$word") ;;
    esac
done

# built ARGUMENTS: builds and prints the path of the one executable.
built() {
    cargo "$@" --locked --message-format json-render-diagnostics |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

# watched SECONDS LOG PATTERN COMMAND: runs it until it ends, says PATTERN, or time is up (then
# `hung` is set); `ended` is its exit code. It is ended as a job of this shell and never by a number:
# on a busy machine that is somebody else's by then.
watched() {
    local seconds=$1 log=$2 pattern=$3 begun=$SECONDS
    shift 3
    hung=''
    # Here and not by the child, which may come to it late: what the one before said is not for it.
    : >"$log"
    RUST_BACKTRACE=0 "$@" >"$log" 2>&1 &
    while [ -n "$(jobs -rp)" ]; do
        [ $((SECONDS - begun)) -lt "$seconds" ] || hung=1
        if [ -n "$hung" ] || grep -q "$pattern" "$log"; then
            kill -9 %% 2>/dev/null
        fi
        sleep 0.1
    done
    wait "$!" 2>/dev/null
    ended=$?
    return "$ended"
}

# tested SECONDS COMMAND: the same for tests.
tested() {
    local seconds=$1
    shift
    watched "$seconds" "$work/log" '^test .* FAILED$' "$@"
}

# What the tests said: the name of the first that failed, hung or aborted; nothing if all passed.
catcher() {
    local name
    name=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$work/log" | head -n 1)
    if [ -z "$name" ] && [ -n "$hung" ]; then
        # A suite that is only slow has caught nothing.
        name=$(sed -n 's/^test \(.*\) has been running.*/\1/p' "$work/log" | head -n 1)
        [ -z "$name" ] || name="$name (hang)"
        echo "${name#channel::file::tests::}"
        return
    fi
    if [ -z "$name" ] && [ "$ended" -ne 0 ]; then
        name=$(sed -n 's/^test \(.*\) \.\.\. .*/\1/p' "$work/log" | tail -n 1)
        name="${name:-?} (abort)"
    fi
    echo "${name#channel::file::tests::}"
}

# tests_against BUG: the catcher, by the test of the table first.
tests_against() {
    local known
    known=$(recorded "$1")
    if [ -n "$known" ]; then
        one_test "$1" "$known" && [ -n "$short" ] && return
        [ -n "$(catcher)" ] && { catcher; return; }
        [ -n "$short" ] && return
    fi
    [ -n "$short" ] && [ -n "$(recorded_seed "$1")" ] && return
    FOREBAY_PLANTED=$1 tested 60 "$format"
    [ -n "$(catcher)" ] && { catcher; return; }
    FOREBAY_PLANTED=$1 tested "$limit" "$channel" channel::file --test-threads 2
    catcher
}

# one_test BUG NAME: a single test, of the channel or of the format.
one_test() {
    local name=${2% (*)} seconds=90
    case $name in
        channel::*) FOREBAY_PLANTED=$1 tested "$seconds" "$channel" "$name" --exact ;;
        *::tests::*) FOREBAY_PLANTED=$1 tested "$seconds" "$format" "$name" --exact ;;
        *) FOREBAY_PLANTED=$1 tested "$seconds" "$channel" "channel::file::tests::$name" --exact ;;
    esac
}

# The test in the row of a bug.
recorded() { sed -n "s/^| \`$1\` |.*| \`\([^|\`]*\)\` *|[^|]*|\$/\1/p" "$table" 2>/dev/null; }

# model_against BUG [SEED]: "promise, after N crashes (seed S)"; nothing if all held. With a seed
# only that history. The model would go on to make the history smaller: here its name is enough.
model_against() {
    local from=${2:-0} most=$crashes
    [ -z "${2:-}" ] || most=1
    FOREBAY_PLANTED=$1 watched "$limit" "$work/model" '^seed ' \
        "$model" --from "$from" --crashes "$most" --jobs 1
    if grep -q '^seed ' "$work/model"; then
        local after seed what
        after=$(sed -n 's/^\([0-9]*\) crashes (.*/\1/p' "$work/model")
        seed=$(sed -n 's/^seed \([0-9]*\):.*/\1/p' "$work/model" | head -n 1)
        what=$(sed -n 's/^seed [0-9]*: *//p' "$work/model" | head -n 1 | sed 's, broken at .*,,' | tr '|`' '  ')
        echo "$what, after ${after:-0} (seed $seed)"
    elif [ -n "$hung" ]; then
        echo "hang"
    elif [ "$ended" -ne 0 ]; then
        echo "abort ($ended)"
    fi
}

# The seed in the row of a bug.
recorded_seed() { sed -n "s/^| \`$1\` |.*(seed \([0-9]*\)) |.*/\1/p" "$table"; }

echo "building ..."
channel=$(built test --lib --no-run --features planted)
format=$(built test -p wal-format --lib --no-run --features planted)
# The short form asks the model only for what no test has caught: unoptimised, it builds faster.
profile=${PROFILE:-sim}
[ -z "$short" ] || profile=dev
model=-
if [ -z "$short" ] || grep -q '^| `.*(seed [0-9]*) | - |' "$table"; then
    model=$(built build --profile "$profile" --bin crash-model --features planted)
fi
if [ -z "$channel" ] || [ -z "$format" ] || [ -z "$model" ]; then
    echo "planted-bugs: the build failed"
    exit 1
fi
# Copies, so that whoever builds meanwhile changes nothing.
cp "$channel" "$work/channel" && channel=$work/channel
cp "$format" "$work/format" && format=$work/format
[ "$model" = - ] || { cp "$model" "$work/model-binary" && model=$work/model-binary; }
"$channel" planted::tests --nocapture | sed -n 's/^bug //p' >"$work/bugs"
cp "$work/bugs" "$work/all"
if [ ${#only[@]} -gt 0 ]; then
    for name in "${only[@]}"; do grep "^$name " "$work/bugs" || { echo "no bug $name"; exit 2; }; done >"$work/some"
    mv "$work/some" "$work/bugs"
fi
[ -s "$work/bugs" ] || { echo "planted-bugs: no bugs listed"; exit 1; }
echo "$(wc -l <"$work/bugs") bugs after $SECONDS s"

# Control: without a bug nothing may be found.
control() {
    if [ -n "$short" ]; then
        local name
        while read -r name; do
            one_test '' "$name" || { echo "control: $name fails without a bug"; sed -n 1,40p "$work/log"; return 1; }
        done < <(while read -r bug _; do recorded "$bug"; done <"$work/bugs" | sort -u)
        return 0
    fi
    local test begun=$SECONDS
    for test in "$format" "$channel channel::file"; do
        # shellcheck disable=SC2086
        tested 1800 $test || { echo "control: $(catcher) fails without a bug"; cat "$work/log"; return 1; }
    done
    # A run that fails takes longer than one that passes, and the machine may be busier by then.
    [ "$limit" -gt $(((SECONDS - begun) * 4)) ] || limit=$(((SECONDS - begun) * 4))
    local found
    found=$(model_against '')
    [ -z "$found" ] || { echo "control: the model finds something without a bug: $found"; return 1; }
}
control || exit 1
echo "control passed after $SECONDS s"

escaped=0 count=0
printf '%-30s  %-60s  %s\n' bug tests model
while read -r bug what; do
    begun=$(date +%s%N)
    by_test=$(tests_against "$bug")
    took=$((($(date +%s%N) - begun) / 100000000))
    by_model=''
    seed=$(recorded_seed "$bug")
    if [ -z "$short" ]; then
        by_model=$(model_against "$bug")
    elif [ -z "$by_test" ] && [ -n "$seed" ]; then
        by_model=$(model_against "$bug" "$seed")
    fi
    if [ -z "$by_test$by_model" ]; then
        escaped=$((escaped + 1))
        by_test='' by_model="**escaped**"
    fi
    count=$((count + 1))
    printf '%-30s  %-60s  %s\n' "$bug" "${by_test:--}" "${by_model:--}"
    test_cell=-
    [ -n "$by_test" ] && test_cell="\`$by_test\`"
    echo "| \`$bug\` | $what | ${by_model:--} | $test_cell | $((took / 10)).$((took % 10)) |" >>"$work/rows"
done <"$work/bugs"
echo "$count bugs planted, $((count - escaped)) caught, $escaped escaped, in $SECONDS s"

# The rows of this run; for bugs that were not asked for, those of the run before.
if [ -n "$write" ]; then
    {
        sed '/^| bug /,$d' "$table"
        echo '| bug | what it does | crash model: promise, after so many crashes | first test that failed | seconds |'
        echo '|---|---|---|---|---|'
        while read -r bug _; do
            grep -F "| \`$bug\` |" "$work/rows" || grep -F "| \`$bug\` |" "$table"
        done <"$work/all"
    } >"$work/table"
    cp "$work/table" "$table"
fi
[ "$escaped" -eq 0 ]
