use super::{Bench, allowed_by_rule, ended, started};

#[test]
fn records_follow_one_another() {
    let bench = Bench::new();
    let store = bench.store();
    assert_eq!(store.append(started("s")).expect("appended").seq, 1);
    assert_eq!(store.append(allowed_by_rule(1, "s")).expect("appended").seq, 2);
    drop(store);
    assert_eq!(bench.store().append(ended("s")).expect("appended").seq, 3);
    let lines = bench.segment(1);
    assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 3);
}
