//! What the programs of one object count of what went wrong.

use std::os::fd::{AsFd, OwnedFd};

use ana_common::{COUNTER_LOST, COUNTER_MISSES};
use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
};

use super::{KernelError, load::take};
use crate::sys;

/// The counters of an object, and its loaded programs, of which the kernel itself counts something.
pub(super) struct Counters {
    map: PerCpuArray<MapData, u64>,
    programs: Vec<OwnedFd>,
}

/// What the programs missed. Anything but zero means that something was not reported or not guarded as it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Reports that found the ring full (an exec that could not be reported was killed).
    pub lost: u64,
    /// Refusals and reports that did not go as they should: a signal that could not be sent, unreadable memory.
    pub misses: u64,
    /// Runs of a program that the kernel skipped: execs that were not guarded.
    pub recursion_misses: u64,
}

impl Health {
    /// Nothing was missed.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

impl Counters {
    /// All programs have to be loaded.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let mut programs = Vec::new();
        for (_, program) in ebpf.programs() {
            let fd = program.fd().map_err(|_not_loaded| KernelError::Missing("loaded program"))?;
            programs.push(fd.as_fd().try_clone_to_owned().map_err(KernelError::Counters)?);
        }
        Ok(Self { map: take(ebpf, "COUNTERS")?, programs })
    }

    /// What went wrong so far.
    pub(super) fn health(&self) -> Result<Health, KernelError> {
        let counter = |which: u32| match self.map.get(&which, 0) {
            Ok(values) => Ok(values.iter().sum()),
            Err(source) => Err(KernelError::Map { map: "COUNTERS", source }),
        };
        let mut recursion_misses = 0;
        for program in &self.programs {
            let counts = sys::bpf::program_counts(program.as_fd()).map_err(KernelError::Counters)?;
            recursion_misses += counts.recursion_misses.unwrap_or(0);
        }
        Ok(Health { lost: counter(COUNTER_LOST)?, misses: counter(COUNTER_MISSES)?, recursion_misses })
    }
}
