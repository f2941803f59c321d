//! What an admitted process becomes: another program, which reads the protected file and says whether it could. The file
//! is named by `ANA_TEST_READ`; what was executed before may have had arguments of its own.

use ana_tests::attempt::{say, tell_io};

fn main() {
    let Some(file) = std::env::var_os("ANA_TEST_READ") else { return say("ANA_TEST_READ names no file") };
    let got = tell_io("read-as-another", std::fs::read(file));
    // As an attack that has won ends its process.
    std::process::exit(if got.is_some() { 42 } else { 5 });
}
