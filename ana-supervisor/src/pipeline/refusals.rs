//! What the connect gate's programs refused in the kernel: written down, and told to whoever tried.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ana_common::network::canonical;
use serde_json::json;

use super::{Pipeline, chain};
use crate::{
    approval::Decided,
    evidence::Event,
    gate::{
        connect::{Asked, ConnectGate, ToRecord, UNWRITTEN_INTERVAL, requester::Asker},
        tell::Refusal as Told,
    },
    kernel::network::{Refusal, RefusalReason},
    operation::{self, Kind, Transport},
    policy::{Action, ENCRYPTED_DNS_RULE, LOCAL_RULE, NETWORK_RULE, QUIC_RULE, Verdict},
};

/// How long the refusals that still wait at the end of a session may take; what is left of them is counted.
const LAST_LIMIT: Duration = Duration::from_secs(2);
/// IPPROTO_TCP.
const TCP: u32 = 6;

impl Pipeline {
    /// Writes down what is refused without a question, one after another, to the end of the session, and how many refusals
    /// are too many for that.
    pub async fn refusals(self: Arc<Self>, gate: Arc<ConnectGate>, mut refusals: ToRecord) {
        let mut often = tokio::time::interval(UNWRITTEN_INTERVAL);
        let mut ends = None;
        loop {
            tokio::select! {
                refusal = refusals.recv() => {
                    let Some(refusal) = refusal else { break };
                    let over = gate.is_closed()
                        && Instant::now() > *ends.get_or_insert_with(|| Instant::now() + LAST_LIMIT);
                    match over {
                        true => gate.not_recorded(&refusal),
                        false => self.refused_unasked(&gate, refusal).await,
                    }
                }
                _ = often.tick() => self.note_unwritten(&gate).await,
            }
        }
        self.note_unwritten(&gate).await;
    }

    /// Says how many refusals there is no record of, and what could not be protected.
    pub async fn note_unwritten(&self, gate: &ConnectGate) {
        if let Some(unprotected) = gate.unprotected() {
            self.note(Event::Loss, json!({ "unprotected": unprotected })).await;
        }
        let unwritten = gate.unwritten();
        if !unwritten.is_empty() {
            let detail = json!({
                "refusals": "more than are written down one by one", "count": unwritten.count(),
                "reasons": unwritten.reasons, "not_told_by_the_kernel": unwritten.lost,
            });
            self.note(Event::Loss, detail).await;
        }
    }

    /// Something was refused: nobody was asked, and the call has failed with EPERM.
    async fn refused_unasked(&self, gate: &ConnectGate, refusal: Refusal) {
        let text = refusal.reason.text();
        let written = match refusal.destination.zip(rule(refusal.reason)) {
            Some((destination, rule)) => {
                // What it stands for is judged, as with a connection.
                let destination = SocketAddr::new(canonical(destination.ip()), destination.port());
                let called = gate.protected_names(destination.ip());
                self.deny(gate, &refusal, Asked::bare(destination, called), rule).await
            }
            None => {
                let detail = json!({
                    "pid": refusal.tgid, "refused": text, "protocol": refusal.protocol,
                    "destination": refusal.destination.map(|destination| destination.to_string()),
                });
                self.note(Event::Tamper, detail).await;
                Ok(())
            }
        };
        if let Err(error) = written {
            self.fail(&format!("a refusal cannot be written down: {}", chain(&error)));
        }
    }

    async fn deny(
        &self,
        gate: &ConnectGate,
        refusal: &Refusal,
        asked: Asked,
        rule: Option<&str>,
    ) -> std::io::Result<()> {
        let judged = asked.judge(&self.policy).verdict;
        let verdict = Verdict {
            action: Action::Deny,
            rule: rule.map_or(judged.rule, str::to_owned),
            because: refusal.reason.text().to_owned(),
            ..judged
        };
        let Some(agent) = gate.common.baseline.borrow().clone().map(|baseline| baseline.agent) else {
            return Ok(());
        };
        let asker = gate.askers.describe(&refusal.origin(), &gate.common, agent, false).await;
        let Asker { requester, process, program, argv, cwd } = asker;
        let transport = if refusal.protocol == TCP { Transport::Tcp } else { Transport::Udp };
        let connect = operation::Connect { transport, program, argv, cwd, ..asked.connect(None, false) };
        let kind = Kind::Connect(Box::new(connect));
        let judged =
            self.judged_as(jiff::Timestamp::now(), verdict, requester, |_| kind.clone(), || kind.clone())?;
        let Ok(decided) = Decided::by_rule(judged) else { return Ok(()) };
        let (operation, why) = (Arc::clone(decided.operation()), decided.reason().to_string());
        if let Err((_, why)) = self.record(decided).await {
            self.fail(&why);
        }
        if let Some(process) = process {
            self.gate.teller.tell(process, Told::of(&operation, why)).await;
        }
        Ok(())
    }
}

/// The rule that the programs have carried out; `Some(None)`: one of the policy's. `None`: no rule, but an attempt at the gate
/// itself, or something that cannot be held.
fn rule(reason: RefusalReason) -> Option<Option<&'static str>> {
    match reason {
        RefusalReason::UdpProtected => Some(None),
        RefusalReason::Quic => Some(Some(QUIC_RULE)),
        RefusalReason::EncryptedDns => Some(Some(ENCRYPTED_DNS_RULE)),
        RefusalReason::UdpLocal | RefusalReason::Listener => Some(Some(LOCAL_RULE)),
        RefusalReason::UdpDefault => Some(Some(NETWORK_RULE)),
        RefusalReason::Proxy
        | RefusalReason::Protocol
        | RefusalReason::Full
        | RefusalReason::Device
        | RefusalReason::Packet
        | RefusalReason::Echo
        | RefusalReason::Unknown(_) => None,
    }
}
