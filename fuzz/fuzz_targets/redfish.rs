//! Any document that a BMC sends.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rackwright::bmc::fuzz_document(bytes));
