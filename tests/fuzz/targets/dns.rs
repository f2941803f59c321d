#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ana_supervisor::fuzz::dns(data));
