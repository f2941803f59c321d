//! The connect gate.

use super::super::network::NetworkPrograms;

#[test]
fn it_loads() {
    NetworkPrograms::load().unwrap();
}
