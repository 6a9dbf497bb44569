//! How much slower or faster one endpoint is than the pool, all features being equal.
//!
//! Nothing in a row names the endpoint, so two kinds of pods, one twice as fast, look the same to the
//! models. Each endpoint therefore carries one factor per target: the exponential of a moving average
//! of ln(observed/predicted). Three things keep it honest. Residuals are clipped, so that one stuck
//! request moves it little. It is shrunk towards 1 by n/(n + 20) until observations have come in. And
//! factors are relative: their mean over the pool, weighted by observations, is 1, so that a change
//! of the whole pool is left to the models.

use std::collections::BTreeMap;

use crate::codec::{Reader, Writer};
use crate::error::{Error, intact};

/// The multipliers of one endpoint, by [`Target::index`](crate::Target::index).
pub type Factors = [f32; 3];

/// Bytes of an endpoint in a document.
pub(crate) const FACTORS_LEN: usize = 8 + 3 * 4;

const CLIP: f64 = 1.0;
const RATE: f64 = 0.02;
const SHRINKAGE: f64 = 20.0;
/// Observations after which an endpoint weighs no more than another.
const FULL: u64 = 200;
/// Factors lie within e⁻⁴..e⁴.
const BOUND: f64 = 4.0;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Offset {
    log: f64,
    seen: u64,
}

impl Offset {
    fn weight(&self) -> f64 {
        self.seen.min(FULL) as f64
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Endpoint {
    offsets: [Offset; 3],
    at: u64,
}

/// The endpoints that have been observed, bounded; the one silent for longest makes room.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FactorTable {
    max: usize,
    endpoints: BTreeMap<u64, Endpoint>,
    /// Per target: the sum of weights and of weighted offsets.
    sums: [(f64, f64); 3],
}

impl FactorTable {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, endpoints: BTreeMap::new(), sums: [(0.0, 0.0); 3] }
    }

    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// The factor of an endpoint; 1 for a stranger.
    pub(crate) fn factor(&self, endpoint: u64, target: usize) -> f32 {
        let offset = self.endpoints.get(&endpoint).map_or(Offset::default(), |e| e.offsets[target]);
        self.factor_of(offset, target)
    }

    fn factor_of(&self, offset: Offset, target: usize) -> f32 {
        let (weight, sum) = self.sums[target];
        if offset.seen == 0 || weight <= 0.0 {
            return 1.0;
        }
        let shrunk = offset.seen as f64 / (offset.seen as f64 + SHRINKAGE);
        ((offset.log - sum / weight) * shrunk).clamp(-BOUND, BOUND).exp() as f32
    }

    /// Learns from ln(observed/predicted), where the prediction was that for the pool.
    pub(crate) fn observe(&mut self, endpoint: u64, target: usize, deviation: f64, at: u64) {
        if !self.endpoints.contains_key(&endpoint) && self.endpoints.len() >= self.max {
            let silent = self.endpoints.iter().min_by_key(|(_, endpoint)| endpoint.at);
            if let Some(key) = silent.map(|(key, _)| *key) {
                self.forget(key);
            }
        }
        let entry = self.endpoints.entry(endpoint).or_default();
        entry.at = at;
        let offset = &mut entry.offsets[target];
        let sums = &mut self.sums[target];
        let middle = if sums.0 > 0.0 { sums.1 / sums.0 } else { 0.0 };
        sums.0 -= offset.weight();
        sums.1 -= offset.weight() * offset.log;
        if offset.seen == 0 {
            offset.log = middle;
        }
        offset.seen += 1;
        let rate = RATE.max(1.0 / (offset.seen + 1) as f64);
        // Measured against the plain average, not the shrunk one that is served: what shrinkage
        // leaves over must not add up.
        let residual = deviation - (offset.log - middle);
        offset.log += rate * residual.clamp(-CLIP, CLIP);
        sums.0 += offset.weight();
        sums.1 += offset.weight() * offset.log;
    }

    /// Forgets an endpoint that is gone.
    pub(crate) fn forget(&mut self, endpoint: u64) {
        self.retain(|key| key != endpoint);
    }

    /// Forgets every endpoint but those that `keep` names. Recomputes the sums, which takes rounding
    /// errors out of them as well.
    pub(crate) fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        self.endpoints.retain(|key, _| keep(*key));
        for (target, sums) in self.sums.iter_mut().enumerate() {
            *sums = self.endpoints.values().fold((0.0, 0.0), |(weight, sum), endpoint| {
                let offset = endpoint.offsets[target];
                (weight + offset.weight(), sum + offset.weight() * offset.log)
            });
        }
    }

    /// Every endpoint with its factors, by key.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (u64, Factors)> {
        self.endpoints.iter().map(|(key, endpoint)| {
            (*key, std::array::from_fn(|t| self.factor_of(endpoint.offsets[t], t)))
        })
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.count(self.endpoints.len());
        for (key, endpoint) in &self.endpoints {
            out.u64(*key);
            out.u64(endpoint.at);
            for offset in &endpoint.offsets {
                out.u64(offset.seen);
                out.f64(offset.log);
            }
        }
    }

    pub(crate) fn decode(max: usize, from: &mut Reader<'_>) -> Result<Self, Error> {
        let mut table = Self::new(max);
        for _ in 0..from.count("factor endpoints", max, 16 + 3 * 16)? {
            let key = from.u64("factor endpoint")?;
            let mut endpoint = Endpoint { at: from.u64("factor time")?, ..Endpoint::default() };
            for offset in &mut endpoint.offsets {
                offset.seen = from.u64("factor count")?;
                offset.log = from.f64("factor offset")?;
                intact("factor offset", offset.log, "-1e6 to 1e6", offset.log.abs() <= 1e6)?;
            }
            table.endpoints.insert(key, endpoint);
        }
        table.retain(|_| true);
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two endpoints, the second three times as slow, seen through a model that knows neither.
    fn learn(rounds: u64) -> FactorTable {
        let mut table = FactorTable::new(8);
        for at in 0..rounds {
            for (endpoint, speed) in [(1, 1.0f64), (2, 3.0)] {
                table.observe(endpoint, 0, (speed / 3f64.sqrt()).ln(), at);
            }
        }
        table
    }

    #[test]
    fn two_speeds_are_told_apart() {
        let table = learn(200);
        let ratio = table.factor(2, 0) / table.factor(1, 0);
        assert!((ratio - 3.0).abs() < 0.35, "{ratio}");
        assert_eq!(table.factor(2, 1), 1.0, "other targets know nothing");
        assert_eq!(table.factor(9, 0), 1.0, "nor do strangers");
        let early = learn(3);
        assert!((1.0..1.5).contains(&early.factor(2, 0)), "{}", early.factor(2, 0));
    }

    #[test]
    fn a_change_of_the_whole_pool_moves_no_factor() {
        let mut table = learn(300);
        let before = (table.factor(1, 0), table.factor(2, 0));
        for at in 300..400 {
            table.observe(1, 0, 0.7 - 3f64.sqrt().ln(), at);
            table.observe(2, 0, 0.7 + 3f64.sqrt().ln(), at);
        }
        let after = (table.factor(1, 0), table.factor(2, 0));
        assert!((before.0 - after.0).abs() < 0.02 && (before.1 - after.1).abs() < 0.02);
    }

    #[test]
    fn one_stuck_request_moves_little() {
        let mut table = learn(300);
        let before = table.factor(1, 0);
        table.observe(1, 0, 12.0, 301);
        assert!((table.factor(1, 0) / before - 1.0).abs() < 0.03);
    }

    #[test]
    fn the_table_is_bounded_and_forgets() {
        let mut table = FactorTable::new(4);
        (0..100).for_each(|n| table.observe(n, 0, 0.5, n));
        assert_eq!(table.iter().map(|(key, _)| key).collect::<Vec<_>>(), [96, 97, 98, 99]);
        table.retain(|key| key == 97);
        assert_eq!((table.len(), table.factor(97, 0)), (1, 1.0), "alone it is the pool");
    }

    #[test]
    fn it_survives_its_encoding() {
        let table = learn(10);
        let mut out = Writer::default();
        table.encode(&mut out);
        let bytes = out.seal(*b"factors.", 1);
        let mut from = Reader::open(&bytes, *b"factors.", 1).unwrap();
        let back = FactorTable::decode(8, &mut from).unwrap();
        assert!(back.iter().zip(table.iter()).all(|(a, b)| a == b));
    }
}
