//! Any body that an installed system posts: JSON or a form.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rackwright::boot::fuzz_call_home(bytes));
