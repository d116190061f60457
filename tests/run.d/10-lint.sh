# Style: format, lints, and documentation that builds without a warning.
part fmt cargo fmt --all --check
part clippy cargo clippy -q --locked --workspace --all-targets --features simulation -- -D warnings
part doc env RUSTDOCFLAGS=-Dwarnings \
    cargo doc -q --locked --workspace --no-deps --document-private-items --features simulation
