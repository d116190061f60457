# Java parts that tests start: a real HDFS, a real Flume. Fetched once, then cached by Maven.
jars() {
    local pom found=0 dir
    for pom in tests/*/pom.xml; do
        [ -e "$pom" ] || continue
        found=1
        dir=$(dirname "$pom")
        if [ -x "$dir/prepare" ]; then
            "$dir/prepare" || return 1
        else
            mvn -B -ntp -q -f "$pom" package || return 1
        fi
    done
    [ "$found" = 1 ] || { echo 'no tests/*/pom.xml'; return 77; }
}
part jars jars
