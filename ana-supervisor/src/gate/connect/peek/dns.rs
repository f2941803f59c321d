//! DNS: which addresses an answer gives to which names, and the answer without the keys for an encrypted ClientHello
//! (RFC 9460, RFC 9848).

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        Name as DnsName, RData, Record, RecordType,
        rdata::{
            SVCB,
            svcb::{Mandatory, SvcParamKey, SvcParamValue},
        },
    },
};
use serde::{Deserialize, Serialize};

use super::name::Name;

/// The most names and the most addresses that one answer may give.
const MANY: usize = 256;
/// The most links of a chain of CNAMEs. Resolvers give up after no more (BIND 9: 16, Unbound: 11).
const LINKS_MAX: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error("not a DNS message: {0}")]
    Malformed(String),
    #[error("not an answer to one question")]
    NotAnAnswer,
    #[error("more names or addresses than belong into one answer")]
    TooMany,
    #[error("the answer cannot be written again: {0}")]
    Encode(String),
}

/// What an answer says about names and addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What was asked for; `None`: nothing that may be a host's name.
    pub question: Option<Name>,
    /// The type that was asked for, as in the message (A is 1, AAAA is 28, HTTPS is 65).
    pub kind: u16,
    /// The question's name and every name that it leads to by CNAME, in order, each once. `addresses` are those of each
    /// of them.
    pub names: Vec<Name>,
    /// From the A and AAAA records of `names` in the answer section.
    pub addresses: Vec<IpAddr>,
    /// Where HTTPS and SVCB records lead besides, and the CNAMEs of what was added to the answer; in order, each once,
    /// none of `names`. A client may take them for the question's servers.
    pub targets: Vec<Name>,
    /// Address hints of HTTPS and SVCB, and the addresses of `targets`; none of `addresses`. Whoever writes such a record
    /// may name any address: they say what a client may connect to under these names, never whose the address is.
    pub hinted: Vec<IpAddr>,
    /// For how many seconds all of it holds: the shortest of the records used; 0 without any.
    pub ttl: u32,
    /// The name exists (NOERROR); without addresses there are none of this type.
    pub exists: bool,
    /// What to hand on: the message itself, or the same without `ech` parameters.
    #[serde(skip)]
    pub message: Vec<u8>,
}

/// What the supervisor asks for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueryKind {
    A,
    Aaaa,
}

/// Reads a server's answer.
///
/// # Errors
/// It is no DNS message, no answer to exactly one question, or says too much.
pub fn dns_answer(message: &[u8]) -> Result<Answer, DnsError> {
    let mut parsed = Message::from_vec(message).map_err(|error| DnsError::Malformed(error.to_string()))?;
    let meta = &parsed.metadata;
    if meta.message_type != MessageType::Response || meta.op_code != OpCode::Query {
        return Err(DnsError::NotAnAnswer);
    }
    let exists = meta.response_code == ResponseCode::NoError;
    let [query] = parsed.queries.as_slice() else { return Err(DnsError::NotAnAnswer) };
    let (question, kind) = (query.name().to_lowercase(), u16::from(query.query_type()));
    let found = Found::of(&parsed, &question)?;
    let message = match without_ech(&mut parsed) {
        true => parsed.to_vec().map_err(|error| DnsError::Encode(error.to_string()))?,
        false => message.to_vec(),
    };
    Ok(Answer {
        question: host(&question),
        kind,
        names: hosts(&found.names),
        addresses: found.addresses.into_iter().collect(),
        targets: hosts(&found.targets),
        hinted: found.hinted.into_iter().collect(),
        ttl: found.ttl.unwrap_or(0),
        exists,
        message,
    })
}

/// A query for the addresses of `name`, recursion desired.
pub fn dns_query(id: u16, name: &Name, kind: QueryKind) -> Result<Vec<u8>, DnsError> {
    let mut fully =
        DnsName::from_ascii(name.as_str()).map_err(|error| DnsError::Encode(error.to_string()))?;
    fully.set_fqdn(true);
    let kind = match kind {
        QueryKind::A => RecordType::A,
        QueryKind::Aaaa => RecordType::AAAA,
    };
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(fully, kind));
    message.to_vec().map_err(|error| DnsError::Encode(error.to_string()))
}

fn host(name: &DnsName) -> Option<Name> {
    Name::parse(name.to_ascii().as_bytes())
}

fn hosts(names: &BTreeSet<DnsName>) -> Vec<Name> {
    names.iter().filter_map(host).collect::<BTreeSet<Name>>().into_iter().collect()
}

/// What belongs to the question, found by following it.
struct Found {
    names: BTreeSet<DnsName>,
    targets: BTreeSet<DnsName>,
    addresses: BTreeSet<IpAddr>,
    hinted: BTreeSet<IpAddr>,
    ttl: Option<u32>,
}

/// The records of a section by their owners: each name is looked up once, however long and disordered a chain is.
type Owners<'a> = HashMap<DnsName, Vec<&'a Record>>;

fn by_owner<'a>(records: impl Iterator<Item = &'a Record>) -> Owners<'a> {
    let mut owners = Owners::new();
    for record in records {
        owners.entry(record.name.to_lowercase()).or_default().push(record);
    }
    owners
}

impl Found {
    /// Records of other names than those that the question leads to say nothing here, wherever they stand.
    fn of(message: &Message, question: &DnsName) -> Result<Self, DnsError> {
        let mut found = Self {
            names: BTreeSet::new(),
            targets: BTreeSet::new(),
            addresses: BTreeSet::new(),
            hinted: BTreeSet::new(),
            ttl: None,
        };
        found.chain(&by_owner(message.answers.iter()), question)?;
        found.around(&by_owner(message.answers.iter().chain(&message.additionals)))?;
        Ok(found)
    }

    /// The question's own addresses, behind its CNAMEs. Only the answer section says them: what a server adds to it is a
    /// courtesy, of other names for the most part.
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "every other type of record leads nowhere, or elsewhere"
    )]
    fn chain(&mut self, owners: &Owners<'_>, question: &DnsName) -> Result<(), DnsError> {
        let mut next = vec![question.clone()];
        while let Some(name) = next.pop() {
            if self.names.contains(&name) {
                continue;
            }
            for record in owners.get(&name).into_iter().flatten() {
                match &record.data {
                    RData::A(address) => drop(self.addresses.insert(IpAddr::V4(address.0))),
                    RData::AAAA(address) => drop(self.addresses.insert(IpAddr::V6(address.0).to_canonical())),
                    RData::CNAME(target) => next.push(target.0.to_lowercase()),
                    _ => continue,
                }
                self.holds_for(record);
                if next.len() > LINKS_MAX {
                    return Err(DnsError::TooMany);
                }
            }
            self.names.insert(name);
            if self.names.len() > LINKS_MAX + 1 || self.addresses.len() > MANY {
                return Err(DnsError::TooMany);
            }
        }
        Ok(())
    }

    /// What a client may use besides, told by HTTPS and SVCB records and by what was added to the answer.
    #[allow(clippy::wildcard_enum_match_arm, reason = "every other type of record leads nowhere")]
    fn around(&mut self, owners: &Owners<'_>) -> Result<(), DnsError> {
        let mut next: Vec<DnsName> = self.names.iter().cloned().collect();
        let mut seen = BTreeSet::new();
        while let Some(name) = next.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            for record in owners.get(&name).into_iter().flatten() {
                match &record.data {
                    RData::A(address) => self.hint(IpAddr::V4(address.0)),
                    RData::AAAA(address) => self.hint(IpAddr::V6(address.0)),
                    RData::CNAME(target) => next.extend(self.target(&target.0)),
                    RData::SVCB(service) => next.extend(self.service(service)),
                    RData::HTTPS(service) => next.extend(self.service(&service.0)),
                    _ => continue,
                }
                self.holds_for(record);
                if self.targets.len() > MANY || self.addresses.len() + self.hinted.len() > MANY {
                    return Err(DnsError::TooMany);
                }
            }
        }
        Ok(())
    }

    fn holds_for(&mut self, record: &Record) {
        self.ttl = Some(self.ttl.map_or(record.ttl, |ttl| ttl.min(record.ttl)));
    }

    fn hint(&mut self, address: IpAddr) {
        let address = address.to_canonical();
        if !self.addresses.contains(&address) {
            self.hinted.insert(address);
        }
    }

    /// The name, if it is a new one.
    fn target(&mut self, name: &DnsName) -> Option<DnsName> {
        let name = name.to_lowercase();
        let new = !self.names.contains(&name) && self.targets.insert(name.clone());
        new.then_some(name)
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "only two parameters hold addresses")]
    fn service(&mut self, service: &SVCB) -> Option<DnsName> {
        for (_, value) in &service.svc_params {
            match value {
                SvcParamValue::Ipv4Hint(hint) => hint.0.iter().for_each(|a| self.hint(IpAddr::V4(a.0))),
                SvcParamValue::Ipv6Hint(hint) => hint.0.iter().for_each(|a| self.hint(IpAddr::V6(a.0))),
                _ => {}
            }
        }
        // The root stands for the record's own name.
        if service.target_name.is_root() { None } else { self.target(&service.target_name) }
    }
}

/// Takes the `ech` parameters out, wherever they are; whether there were any.
fn without_ech(message: &mut Message) -> bool {
    let mut any = false;
    let sections = [&mut message.answers, &mut message.authorities, &mut message.additionals];
    for record in sections.into_iter().flatten() {
        any |= strip(&mut record.data);
    }
    any
}

#[allow(clippy::wildcard_enum_match_arm, reason = "only two types of records have parameters")]
fn strip(data: &mut RData) -> bool {
    let service = match data {
        RData::SVCB(service) => service,
        RData::HTTPS(service) => &mut service.0,
        _ => return false,
    };
    let is_ech = |key: &SvcParamKey| u16::from(*key) == u16::from(SvcParamKey::EchConfigList);
    let before = service.svc_params.len();
    service.svc_params.retain(|(key, _)| !is_ech(key));
    if service.svc_params.len() == before {
        return false;
    }
    // What is gone cannot be mandatory: clients would discard the record.
    for (_, value) in &mut service.svc_params {
        if let SvcParamValue::Mandatory(Mandatory(keys)) = value {
            keys.retain(|key| !is_ech(key));
        }
    }
    service.svc_params.retain(|(_, value)| !matches!(value, SvcParamValue::Mandatory(m) if m.0.is_empty()));
    true
}
