//! The running kernel's own description of its types (/sys/kernel/btf/vmlinux), as far as the loader needs it: where
//! a field lies, and which id a type has.
//!
//! One linear pass over the type section, nothing is copied but the offsets of the types.

use std::{fs, io, ops::Range};

/// Where the kernel shows its BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why a question to the BTF has no answer.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The kernel was built without CONFIG_DEBUG_INFO_BTF.
    #[error("cannot read {VMLINUX}: this kernel has no BTF (CONFIG_DEBUG_INFO_BTF)")]
    Read(#[source] io::Error),
    /// Not BTF, or cut off. The text names the part.
    #[error("{VMLINUX} is malformed: {0}")]
    Malformed(&'static str),
    /// A newer format than this reader knows.
    #[error("{VMLINUX} has types of an unknown kind {0}")]
    UnknownKind(u32),
    /// This kernel's structure has no such field.
    #[error("this kernel has no field {field} in struct {structure}")]
    NoField {
        /// The structure's C name.
        structure: &'static str,
        /// The field's C name.
        field: &'static str,
    },
}

/// The kinds of types that are asked for (`BTF_KIND_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `struct`
    Struct,
    /// `union`
    Union,
    /// `typedef`
    Typedef,
    /// A function.
    Function,
}

impl Kind {
    const fn number(self) -> u32 {
        match self {
            Self::Struct => 4,
            Self::Union => 5,
            Self::Typedef => 8,
            Self::Function => 12,
        }
    }
}

/// Parsed BTF.
pub struct Btf {
    bytes: Vec<u8>,
    /// Where the names are.
    strings: Range<usize>,
    /// Where in `bytes` type 1, 2, … starts.
    index: Vec<u32>,
}

/// Anonymous members may nest this deep.
const NESTING_MAX: u32 = 16;
/// More than any kernel has (6.18: 160,000).
const TYPES_MAX: usize = 4_000_000;

impl Btf {
    /// Reads the running kernel's BTF.
    ///
    /// # Errors
    /// The kernel has none, or it is in a format that this reader does not know.
    pub fn of_the_kernel() -> Result<Self, BtfError> {
        Self::parse(fs::read(VMLINUX).map_err(BtfError::Read)?)
    }

    /// # Errors
    /// Malformed, or an unknown kind of type.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        const MAGIC: u32 = 0xeb9f; // with version 1 in the next byte, in this machine's byte order
        let head = |at| word(&bytes, at).ok_or(BtfError::Malformed("the header is cut off"));
        if head(0)? & 0xff_ffff != MAGIC | 1 << 16 {
            return Err(BtfError::Malformed("no BTF of version 1"));
        }
        let start = head(4)?;
        let section = |offset, length| {
            let from = usize::try_from(start).ok()?.checked_add(usize::try_from(offset).ok()?)?;
            let section = from..from.checked_add(usize::try_from(length).ok()?)?;
            bytes.get(section.clone()).is_some().then_some(section)
        };
        let cut = || BtfError::Malformed("a section is cut off");
        let types = section(head(8)?, head(12)?).ok_or_else(cut)?;
        let strings = section(head(16)?, head(20)?).ok_or_else(cut)?;
        let index = index(&bytes, types)?;
        Ok(Self { bytes, strings, index })
    }

    /// The id of the first type of this kind and name.
    pub fn id(&self, kind: Kind, name: &str) -> Option<u32> {
        self.named(kind, name).next()
    }

    /// Where `field` lies in `structure`, in bytes; members of anonymous structs and unions count as its own.
    ///
    /// # Errors
    /// There is no such field, or it is a bit field.
    pub fn offset(&self, structure: &'static str, field: &'static str) -> Result<u64, BtfError> {
        self.named(Kind::Struct, structure)
            .find_map(|id| self.find(id, field, NESTING_MAX))
            .filter(|bits| bits % 8 == 0)
            .map(|bits| u64::from(bits / 8))
            .ok_or(BtfError::NoField { structure, field })
    }

    fn named(&self, kind: Kind, name: &str) -> impl Iterator<Item = u32> {
        (1u32..).zip(&self.index).filter_map(move |(id, &at)| {
            let (name_at, info) = (self.word(at, 0)?, self.word(at, 1)?);
            (kind_of(info) == kind.number() && self.is_named(name_at, name)).then_some(id)
        })
    }

    /// The bit offset of `field` in the struct or union `id`.
    fn find(&self, id: u32, field: &str, nesting: u32) -> Option<u32> {
        let at = *self.index.get(usize::try_from(id.checked_sub(1)?).ok()?)?;
        let info = self.word(at, 1)?;
        if kind_of(info) != Kind::Struct.number() && kind_of(info) != Kind::Union.number() {
            return None;
        }
        (0..info & 0xffff).find_map(|member| {
            let word = |n| self.word(at, 3 + member * 3 + n);
            // With the kind flag, the upper byte is the size of a bit field.
            let bits = if info >> 31 == 1 { word(2)? & 0xff_ffff } else { word(2)? };
            match word(0)? {
                name if self.is_named(name, field) => Some(bits),
                name if self.is_named(name, "") => {
                    bits.checked_add(self.find(word(1)?, field, nesting.checked_sub(1)?)?)
                }
                _ => None,
            }
        })
    }

    fn word(&self, at: u32, n: u32) -> Option<u32> {
        word(&self.bytes, usize::try_from(at.checked_add(n * 4)?).ok()?)
    }

    fn is_named(&self, at: u32, name: &str) -> bool {
        let strings = self.bytes.get(self.strings.clone()).unwrap_or_default();
        let text = usize::try_from(at).ok().and_then(|at| strings.get(at..));
        text.and_then(|text| text.strip_prefix(name.as_bytes())).is_some_and(|rest| rest.first() == Some(&0))
    }
}

fn kind_of(info: u32) -> u32 {
    info >> 24 & 0x1f
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Where each type of the section starts.
fn index(bytes: &[u8], section: Range<usize>) -> Result<Vec<u32>, BtfError> {
    let cut = || BtfError::Malformed("a type is cut off");
    let (mut index, mut at) = (Vec::with_capacity(section.len() / 24), section.start);
    while at < section.end {
        let info = word(bytes, at + 4).ok_or_else(cut)?;
        let members = usize::try_from(info & 0xffff).unwrap_or(usize::MAX);
        // What follows the three words that every type has.
        let more = match kind_of(info) {
            2 | 7..=12 | 16 | 18 => 0, // ptr, fwd, typedef, volatile, const, restrict, func, float, type tag
            1 | 14 | 17 => 4,          // int, var, decl tag
            3 => 12,                   // array
            4 | 5 | 15 | 19 => members * 12, // struct, union, datasec, enum64
            6 | 13 => members * 8,     // enum, function prototype
            unknown => return Err(BtfError::UnknownKind(unknown)),
        };
        index.push(u32::try_from(at).map_err(|_too_big| BtfError::Malformed("too long"))?);
        at += 12 + more;
        if at > section.end || index.len() > TYPES_MAX {
            return Err(cut());
        }
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { int a; union { struct { int b; int c; }; }; }`, `typedef struct outer named;`
    fn sample() -> Vec<u8> {
        let strings = b"\0outer\0a\0b\0c\0named\0int\0";
        let (outer, a, b, c, named, int) = (1u32, 7, 9, 11, 13, 19);
        let types: Vec<u32> = vec![
            int,
            1 << 24,
            4,
            32, // 1: int
            outer,
            4 << 24 | 2,
            12,
            a,
            1,
            0,
            0,
            3,
            32, // 2: struct outer
            0,
            5 << 24 | 1,
            8,
            0,
            4,
            0, // 3: the union
            0,
            4 << 24 | 2,
            8,
            b,
            1,
            0,
            c,
            1,
            32, // 4: the struct
            named,
            8 << 24,
            2, // 5: the typedef
        ];
        let length = u32::try_from(types.len() * 4).unwrap();
        let text = u32::try_from(strings.len()).unwrap();
        let head = [0x0001_eb9f, 24, 0, length, length, text];
        let mut bytes: Vec<u8> = head.iter().chain(&types).flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend_from_slice(strings);
        bytes
    }

    #[test]
    fn anonymous_members_are_descended() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(btf.offset("outer", "a").unwrap(), 0);
        assert_eq!(btf.offset("outer", "b").unwrap(), 4);
        assert_eq!(btf.offset("outer", "c").unwrap(), 8);
        assert!(matches!(btf.offset("outer", "d"), Err(BtfError::NoField { field: "d", .. })));
        assert!(btf.offset("oute", "a").is_err(), "a prefix is another name");
        assert_eq!(btf.id(Kind::Typedef, "named"), Some(5));
        assert_eq!(btf.id(Kind::Function, "named"), None);
    }

    #[test]
    fn cut_off_or_strange_input_is_an_error() {
        let sample = sample();
        for length in 0..sample.len() {
            assert!(Btf::parse(sample[..length].to_vec()).is_err(), "{length} bytes");
        }
        let mut strange = sample;
        strange[24 + 7] = 31; // the first type's kind
        assert!(matches!(Btf::parse(strange), Err(BtfError::UnknownKind(31))));
    }

    #[test]
    fn the_running_kernel_answers() {
        let btf = Btf::of_the_kernel().unwrap();
        // The first two words of every task are its thread_info.
        assert!(btf.offset("task_struct", "group_leader").unwrap() > 0);
        assert_eq!(btf.offset("linux_binprm", "vma").unwrap(), 0);
        assert!(btf.id(Kind::Typedef, "btf_trace_sched_process_exec").is_some());
    }
}
