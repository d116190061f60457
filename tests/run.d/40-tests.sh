# All tests of the workspace, in one build.
part build cargo test -q --locked --workspace --features simulation --no-run
part tests cargo test --locked --workspace --features simulation --no-fail-fast
