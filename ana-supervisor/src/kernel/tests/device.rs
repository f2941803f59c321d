//! The device allow-list.

use super::super::{DEVICE_MKNOD, DEVICE_READ, DeviceRule, Kernel, STANDARD_DEVICES};
use super::stage::Stage;

/// Can a process of the session do this in a shell?
fn can(stage: &Stage, what: &str) -> bool {
    stage.run(&stage.session, &["/bin/sh", "-c", what]).success()
}

#[test]
fn what_is_not_listed_is_refused() {
    let stage = Stage::new();
    assert!(can(&stage, "exec 3</dev/kmsg"), "the test needs a device that is there and not listed");
    let guard = stage.guard(Kernel::load().unwrap());
    for device in ["null", "zero", "full", "random", "urandom"] {
        assert!(can(&stage, &format!("exec 3<>/dev/{device}")), "{device}");
    }
    assert!(can(&stage, "exec 3</dev/ptmx"));
    assert!(!can(&stage, "exec 3</dev/kmsg"));
    let node = stage.programs.join("node").display().to_string();
    assert!(!can(&stage, &format!("mknod {node} c 1 3")), "even a listed one may not be made");
    assert!(can(&stage, &format!("mknod {node} p")), "a fifo is no device");
    assert!(guard.maps.health().unwrap().is_clean());
}

#[test]
fn access_is_granted_bit_by_bit() {
    let stage = Stage::new();
    let mut devices = STANDARD_DEVICES.to_vec();
    devices.push(DeviceRule { major: 1, minor: Some(11), access: DEVICE_READ });
    devices.push(DeviceRule { major: 99, minor: None, access: DEVICE_MKNOD });
    let _guard = stage.guard_with(Kernel::load().unwrap(), 2, &devices);
    assert!(can(&stage, "exec 3</dev/kmsg"), "1:11 is readable now");
    assert!(!can(&stage, "exec 3>/dev/kmsg"));
    let node = stage.programs.join("node").display().to_string();
    assert!(can(&stage, &format!("mknod {node} c 99 7")), "every minor");
    assert!(!can(&stage, &format!("exec 3<{node}")), "made, but not to be opened");
    assert!(!can(&stage, &format!("mknod {node}-block b 99 7")), "the rules are for character devices");
}
