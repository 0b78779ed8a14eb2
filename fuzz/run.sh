#!/bin/sh
# Builds the targets with coverage counters on the stable toolchain and runs one of them, or all in turn.
#   fuzz/run.sh SECONDS [TARGET]
# cargo-fuzz works too (`cargo +nightly fuzz run TARGET`); this needs neither it nor nightly: the flags below are what it passes.
set -eu
cd "$(dirname "$0")"
seconds=$1
targets=${2:-dhcp tftp json disk manifest redfish callhome signers}
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
cargo build --release --target "$host"
for target in $targets; do
    # What is in the repository anyway, to begin with.
    case $target in
        json) seeds=../tests/golden/v1 ;;
        manifest) seeds="../examples ../tests/manifests" ;;
        signers) seeds=../tests/manifests/bad/bad-signers/signers ;;
        redfish) seeds=../tests/bmc_redfish ;;
        *) seeds= ;;
    esac
    mkdir -p "corpus/$target" "artifacts/$target"
    # shellcheck disable=SC2086 # words on purpose
    "target/$host/release/$target" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -max_len=65536 \
        -artifact_prefix="artifacts/$target/" -print_final_stats=1 "corpus/$target" $seeds
done
