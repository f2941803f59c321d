//! What is done with bytes that an agent, a client or a file can choose: one function a parser, for the fuzzer
//! (`cargo xtask fuzz`) and, over the same seeds and some thousand random inputs, for an ordinary test.
//!
//! None of them may panic by itself, and each asserts what has to hold of whatever was parsed.

use std::{net::IpAddr, path::Path};

use crate::{
    api::{
        frame::{Assembly, SMALL_REQUEST_MAX},
        wire::{Reply, Request},
    },
    gate::{
        connect::peek::{self, LOOK_MAX, Name, Peek},
        process,
    },
    launch::spec::{FromLeader, ToLeader},
    policy::{Action, Destination, Policy, Source},
    sys::fanotify,
};

/// A policy's text, a NUL, and an argv whose arguments end with NULs.
pub fn policy(data: &[u8]) {
    let (text, argv) = match data.iter().position(|&byte| byte == 0) {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &b""[..]),
    };
    let text = String::from_utf8_lossy(text).into_owned();
    let source = Source { name: "policy.toml".to_owned(), text };
    let policy = match Policy::parse(&[source], Path::new("/home/alice")) {
        Ok(policy) => policy,
        Err(errors) => {
            assert!(!errors.problems().is_empty() && !errors.to_string().is_empty());
            return;
        }
    };
    connections(&policy, argv);
    let argv = process::split(argv);
    for file in policy.exec_files() {
        let listed = [file];
        let verdict = policy.judge_exec(&listed, &argv);
        assert!(policy.exec_rules().iter().any(|rule| rule.name() == verdict.rule), "{verdict:?}");
        if let Some(always) = policy.denies_always(&listed) {
            assert_eq!((always.action, verdict.action), (Action::Deny, Action::Deny));
        }
        if !verdict.needs_argv {
            let other = policy.judge_exec(&listed, &[b"\xffno such name".to_vec()]);
            assert_eq!(
                (verdict.action, verdict.rule),
                (other.action, other.rule),
                "the arguments were needed"
            );
        }
        // Nothing is allowed that an interpreter opened.
        assert_ne!(policy.judge_script(&listed, None).action, Action::Allow);
        assert_eq!(policy.judge_script(&listed, Some(&argv)), policy.judge_script(&listed, Some(&argv)));
    }
}

/// Whatever a connection shows has a verdict, and nothing is allowed by a name that nobody has confirmed.
fn connections(policy: &Policy, shown: &[u8]) {
    let shown = String::from_utf8_lossy(shown);
    let names = [shown.clone().into_owned()];
    for (address, port) in [(IpAddr::from([192, 0, 2, 1]), 443), (IpAddr::from([8, 8, 8, 8]), 853)] {
        let asked = Destination {
            address,
            port,
            shown: Some(&shown),
            encrypted: false,
            names: &names,
            resolved: &[],
            shown_is_its_own: false,
            local: false,
            exe: &[],
        };
        let lied = policy.judge_connect(&asked);
        assert!(lied.verdict.because.is_ascii(), "{lied:?}");
        assert!(lied.verdict.action != Action::Allow || lied.name.is_none(), "{lied:?}");
        assert!(!lied.confirmed, "{lied:?}");
    }
}

/// The first byte says in which portions the rest arrives on the socket.
pub fn frames(data: &[u8]) {
    let Some((&portion, bytes)) = data.split_first() else { return };
    frames_of::<Request>(bytes, portion);
    frames_of::<Reply>(bytes, portion);
    frames_of::<ToLeader>(bytes, portion);
    frames_of::<FromLeader>(bytes, portion);
}

fn frames_of<T: serde::de::DeserializeOwned + serde::Serialize>(bytes: &[u8], portion: u8) {
    let said = |portion: usize| {
        let mut assembly = Assembly::new(SMALL_REQUEST_MAX);
        let mut said = Vec::new();
        for part in bytes.chunks(portion.max(1)) {
            assembly.push(part);
            loop {
                match assembly.frame::<T>() {
                    Ok(Some(message)) => said.push(serde_json::to_string(&message).map_err(|_no_json| ())),
                    Ok(None) => break,
                    // A connection ends with its first error.
                    Err(_malformed) => {
                        said.push(Err(()));
                        return said;
                    }
                }
            }
        }
        said
    };
    assert_eq!(said(usize::from(portion)), said(bytes.len()), "the portions made a difference");
}

/// A segment of the evidence.
pub fn evidence(data: &[u8]) {
    crate::evidence::fuzz::segment(data);
}

/// What a read of the fanotify group returned.
pub fn fanotify(data: &[u8]) {
    let mut count = 0;
    let parsed = fanotify::parse(data, &mut |_| count += 1);
    assert!(parsed.is_err() || count <= data.len() / 24, "more events than there is room for");
}

/// What /proc says of a process: the first byte chooses the file. An argv, too, is cut as `cmdline` is.
pub fn proc(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else { return };
    match kind % 4 {
        0 => {
            let parts = process::split(bytes);
            let whole = parts.join(&0);
            assert!(whole == bytes || [whole.as_slice(), &[0]].concat() == bytes, "bytes were lost");
        }
        1 => drop(process::ids(&String::from_utf8_lossy(bytes))),
        2 => {
            if let Ok(stat) = process::parse_stat(bytes) {
                assert!(!stat.start_time.contains(' '), "{} {}", stat.parent, stat.start_time);
            }
        }
        _ => environment(bytes),
    }
}

fn environment(bytes: &[u8]) {
    let (before, now) = bytes.split_at(bytes.len() / 2);
    let baseline = process::Baseline {
        agent: nix::unistd::Pid::from_raw(1),
        namespaces: process::Namespaces::default(),
        environment: process::split(before),
    };
    let found = process::environment(now, "nonce", &baseline);
    assert!(found.changed.is_sorted_by(|a, b| a.name < b.name), "a name came twice");
    // What makes a program run other code is a change like any other, and is shown.
    assert!(process::changed_hooks(now, &baseline).len() <= found.changed.len());
    assert!(process::environment(before, "nonce", &baseline).changed.is_empty());
}

/// The first bytes of a connection: whatever is cut off, the answer is the same or not yet there.
pub fn peek(data: &[u8]) {
    let whole = peek::look(data, false);
    let end = peek::look(data, true);
    assert!(end != Peek::More && (whole == Peek::More || whole == end), "{whole:?} {end:?}");
    assert!(whole != Peek::More || data.len() < LOOK_MAX, "more than is looked at");
    let step = data.len() / 64 + 1;
    for length in (0..data.len()).step_by(step) {
        let part = peek::look(&data[..length], false);
        assert!(part == Peek::More || part == whole, "{length}: {part:?} {whole:?}");
    }
    let Peek::Done(shown) = end else { return };
    assert!(shown.head <= data.len());
    // What the worker says of it arrives as it was.
    let json = serde_json::to_vec(&shown).unwrap_or_default();
    assert_eq!(serde_json::from_slice(&json).ok(), Some(shown));
}

/// A DNS server's answer.
pub fn dns(data: &[u8]) {
    let Ok(answer) = peek::dns_answer(data) else { return };
    assert!(answer.names.is_sorted() && answer.addresses.is_sorted());
    assert!(answer.names.iter().all(|name| Name::parse(name.as_bytes()).as_ref() == Some(name)));
    // What is handed on says the same, and has no more to be taken out.
    if let Ok(again) = peek::dns_answer(&answer.message) {
        assert_eq!(again.addresses, answer.addresses);
        assert_eq!(again.message, answer.message, "it is not the same the second time");
    } else {
        panic!("what is handed on cannot be read");
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    /// How many inputs are made of each target's seeds.
    const RANDOM: usize = 3000;
    const LENGTH_MAX: usize = 1 << 12;

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(target);
        let mut files: Vec<PathBuf> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "no seeds in {}", folder.display());
        files.into_iter().map(|file| fs::read(file).unwrap()).collect()
    }

    /// Marsaglia's xorshift64: the same inputs in every run, so that a failure can be repeated.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % (end.max(1) as u64)).unwrap()
        }

        fn byte(&mut self) -> u8 {
            const TELLING: &[u8] = b"\0\x01\x18\x7f\x80\xff\"\\{}[]:,.*\n= ";
            match self.below(2) {
                0 => TELLING[self.below(TELLING.len())],
                _ => u8::try_from(self.below(256)).unwrap(),
            }
        }

        fn mutate(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
            let mut bytes = seeds[self.below(seeds.len())].clone();
            for _ in 0..=self.below(8) {
                let at = self.below(bytes.len() + 1);
                match self.below(6) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, self.byte()),
                    2 if at < bytes.len() => drop(bytes.remove(at)),
                    3 => {
                        let other = &seeds[self.below(seeds.len())];
                        let from = self.below(other.len() + 1);
                        bytes.splice(at.., other[from..].iter().copied());
                    }
                    _ if at < bytes.len() => bytes[at] = self.byte(),
                    _ => bytes.push(self.byte()),
                }
            }
            bytes.truncate(LENGTH_MAX);
            bytes
        }
    }

    fn attack(target: &str, parse: fn(&[u8])) {
        let seeds = seeds(target);
        seeds.iter().for_each(|seed| parse(seed));
        let mut dice = Dice(0x2545_f491_4f6c_dd1d);
        for _ in 0..RANDOM {
            parse(&dice.mutate(&seeds));
        }
    }

    #[test]
    fn any_policy() {
        attack("policy", super::policy);
    }

    #[test]
    fn any_frames() {
        attack("frames", super::frames);
    }

    #[test]
    fn any_evidence() {
        attack("evidence", super::evidence);
    }

    #[test]
    fn any_fanotify_records() {
        attack("fanotify", super::fanotify);
    }

    #[test]
    fn any_process() {
        attack("proc", super::proc);
    }

    #[test]
    fn any_first_bytes() {
        attack("peek", super::peek);
    }

    #[test]
    fn any_dns_answer() {
        attack("dns", super::dns);
    }
}
