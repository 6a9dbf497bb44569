//! What happens between a request's arrival and its profiles: windows, screeners, data producers,
//! admitters.

use crate::decision::{Rejection, ScheduleError};
use crate::endpoint::EndpointIx;
use crate::plan::Plan;
use crate::plugin::{
    Candidates, DataProducer, LoadSource, Producing, Refusal, Screener, Ticket, Tickets,
};
use crate::request::Request;

use super::guard::isolate;
use super::laps::ExtensionPoint;
use super::scratch::{Failures, Scratch, Work, mark};

/// A request, and what its data are produced from.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// The request.
    pub request: &'a Request<'a>,
    /// Narrows the candidates to the endpoints it names, when given.
    pub subset: Option<&'a [EndpointIx]>,
    /// Live bookings.
    pub load: &'a dyn LoadSource,
    /// Places in windows that the request has waited for.
    pub tickets: &'a [(crate::effect::PluginIx, Ticket)],
    /// Boot-time clock in ms.
    pub now_ms: u64,
    /// The seed of the decision.
    pub seed: u64,
    /// Says whether the time for producing data is up. Asked before every data producer but the
    /// first; the others are left out then.
    pub overdue: Option<&'a dyn Fn() -> bool>,
}

/// How far the data producers got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Produced {
    /// All of them ran, or one failed.
    All,
    /// Time was up before the last ones had their turn.
    Cut,
}

impl<'a> Ask<'a> {
    /// A request that may go anywhere, has not waited for anything and has all the time there is;
    /// the seed is 0.
    pub fn new(request: &'a Request<'a>, load: &'a dyn LoadSource, now_ms: u64) -> Self {
        Self { request, subset: None, load, tickets: &[], now_ms, seed: 0, overdue: None }
    }

    /// The same, narrowed to `subset`.
    #[must_use]
    pub fn within(self, subset: Option<&'a [EndpointIx]>) -> Self {
        Self { subset, ..self }
    }
}

impl Plan {
    fn producing<'a>(&'a self, ask: &Ask<'a>, candidates: &'a [EndpointIx]) -> Producing<'a> {
        let &Ask { request, load, tickets, now_ms, seed, .. } = ask;
        let (endpoints, settled) = (&*self.endpoints, &self.settled);
        Producing { request, endpoints, candidates, load, settled, tickets, now_ms, seed }
    }

    /// Asks the data producers that collect requests in windows for places. When the answer is not
    /// empty, hold the request until the last `ready_at_ms` and hand the tickets to
    /// [`produce`](Self::produce). A producer that fails has no ticket here and fails again there.
    pub fn enroll(&self, ask: &Ask<'_>, scratch: &mut Scratch) -> Tickets {
        let mut tickets = Tickets::new();
        if self.config.windows.is_empty() {
            return tickets;
        }
        self.narrow(ask, scratch);
        let cx = self.producing(ask, &scratch.candidates);
        for &plugin in &self.config.windows {
            let producer = self.roles(plugin).and_then(|r| r.producer.as_deref());
            let ticket = producer.map(|producer| isolate(|| producer.enroll(&cx)));
            if let Some(Ok(Some(ticket))) = ticket {
                tickets.push((plugin, ticket));
            }
        }
        tickets
    }

    /// Screens the candidates and runs the data producers in order. The first producer that fails
    /// ends the pass: its data and those of the producers after it may be missing, which scorers
    /// take as absent.
    pub fn produce(&self, ask: &Ask<'_>, scratch: &mut Scratch) -> Produced {
        self.narrow(ask, scratch);
        if !self.config.screeners.is_empty() {
            self.screen(ask, scratch);
        }
        let Scratch { columns, state, candidates, failures, laps, .. } = scratch;
        let cx = self.producing(ask, candidates);
        for (position, &plugin) in self.config.producers.iter().enumerate() {
            let Some(producer) = self.roles(plugin).and_then(|r| r.producer.as_deref()) else {
                continue;
            };
            if position > 0 && ask.overdue.is_some_and(|overdue| overdue()) {
                return Produced::Cut;
            }
            let produced = laps.time(ExtensionPoint::DataProducer, plugin, || {
                isolate(|| DataProducer::produce(producer, &cx, columns, state))
            });
            if let Err(error) = produced {
                failures.add(plugin, error);
                break;
            }
        }
        Produced::All
    }

    fn narrow(&self, ask: &Ask<'_>, scratch: &mut Scratch) {
        if !scratch.fits(self) {
            self.begin(scratch);
        }
        if let Some(subset) = ask.subset {
            self.restrict(subset, scratch);
        }
    }

    /// Every screener sees the candidates as they came; those that all keep stay.
    fn screen(&self, ask: &Ask<'_>, scratch: &mut Scratch) {
        let Scratch { candidates, decision, failures, laps, work, .. } = scratch;
        let Work { before, screened, rejections, bits, .. } = work;
        screened.clone_from(candidates);
        let cx = self.producing(ask, candidates);
        for (&plugin, position) in self.config.screeners.iter().zip(0..) {
            let Some(screener) = self.roles(plugin).and_then(|r| r.screener.as_deref()) else {
                continue;
            };
            before.clone_from(candidates);
            rejections.clear();
            let done = laps.time(ExtensionPoint::Screener, plugin, || {
                run_screener(screener, &cx, before, rejections, position)
            });
            match done {
                Ok(()) => {
                    mark(bits, self.endpoints.len(), before);
                    screened.retain(|ix| bits[*ix as usize / 64] & 1 << (ix % 64) != 0);
                    decision.screened.append(rejections);
                }
                Err(error) => failures.add(plugin, error),
            }
        }
        std::mem::swap(candidates, screened);
    }

    /// Asks the admitters; the first one that denies the request ends it.
    pub(super) fn admit(
        &self,
        request: &Request<'_>,
        now_ms: u64,
        seed: u64,
        scratch: &mut Scratch,
    ) -> Result<(), ScheduleError> {
        let Scratch { columns, state, candidates, failures, laps, .. } = scratch;
        for &plugin in &self.config.admitters {
            let Some(admitter) = self.roles(plugin).and_then(|r| r.admitter.as_deref()) else {
                continue;
            };
            let cx = self.cycle(request, columns, state, None, now_ms, seed);
            let verdict = laps.time(ExtensionPoint::Admission, plugin, || {
                isolate(|| admitter.admit(&cx, candidates))
            });
            match verdict {
                Ok(None) => {}
                Ok(Some(message)) => {
                    let status = self.denial_status;
                    return Err(ScheduleError::Denied(Refusal { status, message }));
                }
                Err(error) => Failures::add(failures, plugin, error),
            }
        }
        Ok(())
    }
}

fn run_screener(
    screener: &dyn Screener,
    cx: &Producing<'_>,
    kept: &mut Vec<EndpointIx>,
    rejections: &mut Vec<Rejection>,
    position: u16,
) -> Result<(), crate::decision::PluginError> {
    let mut candidates = Candidates::new(kept, rejections, position);
    isolate(|| screener.screen(cx, &mut candidates))
}
