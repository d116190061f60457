# Java parts that tests start: a real HDFS, a real Flume. This only fills Maven's own cache, so
# that a slow download is not part of a test; tests/support copies the jars from there.
jars() {
    local pom name complete scratch
    for pom in tests/*/pom.xml; do
        [ -e "$pom" ] || { echo 'no tests/*/pom.xml'; return 77; }
        name=$(basename "$(dirname "$pom")")
        complete=$(ls -t "${FOREBAY_CACHE:-target}/$name-jars"/.complete-* 2>/dev/null | head -n 1)
        if [ -n "$complete" ] && [ "$complete" -nt "$pom" ]; then
            echo "$name: fetched before"
            continue
        fi
        scratch=$LOGS/jars-$name
        mvn -q -B -ntp -f "$pom" package "-Djars.dir=$scratch" || return 1
        echo "$name: $(find "$scratch" -name '*.jar' | wc -l) jars"
        rm -rf "$scratch"
    done
}
part jars jars
