//! Where a map is full, user space is told which one.

use super::super::super::{KernelError, network::NetworkPrograms};

#[test]
fn what_finds_its_map_full_is_refused() {
    assert!(nix::unistd::geteuid().is_root(), "this test loads eBPF programs: run it as root");
    let names = ["PORTS", "PROTECTED4", "PROTECTED6", "PORT_SETS", "LOCAL"];
    let maps = NetworkPrograms::load_with(&names.map(|name| (name, 1))).unwrap().maps();
    let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    type Fill<'a> = (&'a str, &'a dyn Fn(u8) -> Result<(), KernelError>);
    let fills: [Fill<'_>; 5] = [
        ("PORTS", &|n| maps.inspect(n.into())),
        ("PROTECTED4", &|n| maps.protect(ip(&format!("192.0.2.{n}")), 32, 1)),
        ("PROTECTED6", &|n| maps.protect(ip(&format!("2001:db8::{n}")), 128, 1)),
        ("PORT_SETS", &|n| maps.port_set(1, n.into())),
        ("LOCAL", &|n| maps.own_address(ip(&format!("192.0.2.{n}")), true)),
    ];
    for (name, fill) in fills {
        fill(1).unwrap();
        match fill(2) {
            Err(KernelError::Map { map, .. }) => assert_eq!(map, name),
            other => panic!("{name}: {other:?}"),
        }
        fill(1).expect("it is there already");
    }
    maps.unprotect(ip("192.0.2.1"), 32).unwrap();
    maps.protect(ip("192.0.2.2"), 32, 1).expect("there is room again");
}
