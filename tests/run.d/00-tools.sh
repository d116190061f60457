# Tools: what is missing is installed as root, otherwise the run stops with the line to type.
# Pinned so that two runs judge alike; built once into cargo's own directory.
DENY_VERSION=0.20.2

# have COMMAND: also in the places that are not on every user's PATH.
have() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }

packages() {
    local missing=() pair
    for pair in mkfs.xfs:xfsprogs mkfs.ext4:e2fsprogs losetup:mount python3:python3 \
        java:default-jdk-headless mvn:maven cc:gcc git:git; do
        have "${pair%%:*}" || missing+=("${pair##*:}")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    local line="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    if [ "$(id -u)" -eq 0 ] && have apt-get; then
        echo "$line"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q && apt-get install -q -y --no-install-recommends "${missing[@]}"
    else
        echo "missing: ${missing[*]}; type:  sudo sh -c '$line'"
        return 1
    fi
}

rust() {
    if ! have cargo; then
        echo "missing: Rust; type:  curl -sSf https://sh.rustup.rs | sh -s -- -y"
        return 1
    fi
    cargo --version
    if ! cargo fmt --version || ! cargo clippy --version; then
        if have rustup; then
            rustup component add rustfmt clippy
        else
            echo "missing: rustfmt or clippy; install them beside $(command -v cargo)"
            return 1
        fi
    fi
}

deny_tool() {
    local found
    found=$(cargo deny --version 2>/dev/null | awk '{print $2}')
    if [ -n "$found" ]; then
        echo "cargo-deny $found"
        return 0
    fi
    # Unoptimised: it builds in a third of the time and is used for seconds.
    cargo install --locked --debug cargo-deny --version "$DENY_VERSION"
}

tools() { packages && rust && deny_tool; }

part tools tools
[ "$FAILED" -eq 0 ] || stop "tests/run: install what is missing first (see above)"
