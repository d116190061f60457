# Style: format, lints, and documentation that builds without a warning.
part fmt cargo fmt --all --check
part clippy cargo clippy -q --locked --workspace --all-targets --features simulation -- -D warnings
part clippy-shuttle cargo clippy -q --locked --features shuttle --lib --test concurrency_shuttle -- -D warnings
# Links to private items are wanted: the documentation is for whoever works on the code.
part doc env "RUSTDOCFLAGS=-Dwarnings -Arustdoc::private-intra-doc-links" \
    cargo doc -q --locked --workspace --no-deps --document-private-items --features simulation
