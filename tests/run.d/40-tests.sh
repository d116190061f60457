# All tests of the workspace, in one build. The README's command is a release build; it is made
# here, so that its seconds are not those of a test.
part release cargo build -q --release --locked
part build cargo test -q --locked --workspace --features simulation --no-run
part tests cargo test --locked --workspace --features simulation --no-fail-fast
