//! How long plugins take, where the caller wants to know.

use crate::effect::PluginIx;

/// A place in the cycle where plugins are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtensionPoint {
    /// [`Admitter`](crate::plugin::Admitter).
    Admission,
    /// [`DataProducer`](crate::plugin::DataProducer).
    DataProducer,
    /// [`Filter`](crate::plugin::Filter).
    Filter,
    /// [`Picker`](crate::plugin::Picker).
    Picker,
    /// [`PostChoice`](crate::plugin::PostChoice).
    PreRequest,
    /// [`ProfileHandler`](crate::plugin::ProfileHandler): the primary profile is named.
    ProcessProfilesResults,
    /// [`ProfileHandler`](crate::plugin::ProfileHandler): the next profiles are named.
    ProfilePicker,
    /// [`PreCall`](crate::plugin::PreCall).
    RequestHeader,
    /// [`Scorer`](crate::plugin::Scorer).
    Scorer,
    /// [`Screener`](crate::plugin::Screener).
    Screener,
}

impl ExtensionPoint {
    /// Name in metrics, as the endpoint picker has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admission => "Admission",
            Self::DataProducer => "DataProducer",
            Self::Filter => "Filter",
            Self::Picker => "Picker",
            Self::PreRequest => "PreRequest",
            Self::ProcessProfilesResults => "ProcessProfilesResults",
            Self::ProfilePicker => "ProfilePicker",
            Self::RequestHeader => "RequestHeader",
            Self::Scorer => "Scorer",
            Self::Screener => "Screener",
        }
    }
}

/// One call of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lap {
    /// Where it was called.
    pub point: ExtensionPoint,
    /// Which instance.
    pub plugin: PluginIx,
    /// How long it took, in the clock's unit.
    pub taken: u64,
}

/// The plugin calls of one request, timed with a clock of the caller's. Off until
/// [`start`](Self::start), and off again with the next request; then a call costs one comparison
/// more. The times have no part in the decision.
#[derive(Debug, Default)]
pub struct Laps {
    clock: Option<fn() -> u64>,
    laps: Vec<Lap>,
}

impl Laps {
    /// Times what follows.
    pub fn start(&mut self, clock: fn() -> u64) {
        self.clock = Some(clock);
    }

    /// The calls so far, in their order.
    pub fn as_slice(&self) -> &[Lap] {
        &self.laps
    }

    pub(crate) fn forget(&mut self) {
        self.clock = None;
        self.laps.clear();
    }

    pub(crate) fn time<T>(
        &mut self,
        point: ExtensionPoint,
        plugin: PluginIx,
        call: impl FnOnce() -> T,
    ) -> T {
        let started = self.clock.map(|clock| (clock, clock()));
        let answer = call();
        if let Some((clock, started)) = started {
            let taken = clock().saturating_sub(started);
            self.laps.push(Lap { point, plugin, taken });
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static NOW: Cell<u64> = const { Cell::new(0) };
    }

    #[test]
    fn calls_are_timed_from_start_to_the_next_request() {
        let mut laps = Laps::default();
        assert_eq!(laps.time(ExtensionPoint::Filter, 1, || 5), 5);
        assert!(laps.as_slice().is_empty());
        laps.start(|| NOW.get());
        laps.time(ExtensionPoint::Scorer, 2, || NOW.set(NOW.get() + 7));
        laps.time(ExtensionPoint::Picker, 3, || ());
        let lap = |point, plugin, taken| Lap { point, plugin, taken };
        let expected = [lap(ExtensionPoint::Scorer, 2, 7), lap(ExtensionPoint::Picker, 3, 0)];
        assert_eq!(laps.as_slice(), expected);
        laps.forget();
        laps.time(ExtensionPoint::Scorer, 2, || ());
        assert!(laps.as_slice().is_empty());
    }
}
