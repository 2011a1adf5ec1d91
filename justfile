# The front door. `just` lists what there is.
default:
    @just --list

# Seconds: formatting, lints, the promises of ARCHITECTURE.md.
check:
    cargo fmt --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo test --package xtask

# Everything that runs without the release binary.
test:
    cargo nextest run --workspace --exclude e2e

# The release binary under real clients.
e2e:
    ./scripts/build-release
    cargo nextest run --package e2e

# What CI runs.
ci:
    .ci/run

# Ratios to a peer in the same run.
bench:
    ./scripts/build-release
    bench/run
