#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| esgz_fuzz::list(bytes));
