//! What the pickers share: their one parameter, and taking the best `k` of `n` with ties at random.

use std::cmp::Ordering;

use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::Cycle;
use inlane_core::registry::{Build, BuildError, Params};
use inlane_core::rng::Rng;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// How many endpoints to pick at most; not positive = 1.
    max_num_of_endpoints: i64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { max_num_of_endpoints: 1 }
    }
}

/// A picker's settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Picking {
    /// How many endpoints to pick at most, at least 1.
    pub(crate) count: usize,
    salt: u64,
}

impl Picking {
    /// Reads the parameters that all pickers have.
    ///
    /// # Errors
    /// A parameter that no picker has, or of the wrong type.
    pub(crate) fn build(build: &mut Build<'_>, params: &Params) -> Result<Self, BuildError> {
        let Parameters { max_num_of_endpoints } = params.decode()?;
        if max_num_of_endpoints <= 0 {
            build.warn(format!(
                "maxNumOfEndpoints: {max_num_of_endpoints} is not positive, using 1"
            ));
        }
        let count = usize::try_from(max_num_of_endpoints).unwrap_or(1).max(1);
        Ok(Self { count, salt: u64::from(build.instance()) })
    }

    /// The generator of this picker in this decision.
    pub(crate) fn rng(&self, cx: &Cycle<'_>) -> Rng {
        cx.rng(self.salt)
    }

    /// The random numbers of this picker in this decision, addressed by position.
    pub(crate) fn draws(&self, cx: &Cycle<'_>) -> Draws {
        Draws(self.rng(cx).next_u64())
    }
}

/// Independent random numbers by position: drawn again rather than stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draws(u64);

impl Draws {
    fn rng(self, position: EndpointIx) -> Rng {
        Rng::new(self.0 ^ u64::from(position))
    }

    /// 64 random bits.
    pub(crate) fn bits(self, position: EndpointIx) -> u64 {
        self.rng(position).next_u64()
    }

    /// Uniform in `[0, 1)`.
    pub(crate) fn unit(self, position: EndpointIx) -> f64 {
        self.rng(position).unit()
    }
}

/// A total as the pickers compare it: what is no number is worse than any number.
pub(crate) fn comparable(total: f64) -> f64 {
    if total.is_nan() { f64::NEG_INFINITY } else { total }
}

/// The candidate with the highest total; of equal ones each with the same odds.
///
/// Reservoir sampling over the ties: the i-th of them replaces the choice with odds 1/i.
pub(crate) fn best(candidates: &[EndpointIx], totals: &[f64], mut rng: Rng) -> Option<EndpointIx> {
    let (mut best, mut best_total, mut ties) = (None, f64::NEG_INFINITY, 0);
    for (&endpoint, &total) in candidates.iter().zip(totals) {
        let total = comparable(total);
        if total > best_total {
            (best, best_total, ties) = (Some(endpoint), total, 1);
        } else if total == best_total {
            ties += 1;
            if rng.below(ties) == 0 {
                best = Some(endpoint);
            }
        }
    }
    best
}

/// Appends the `count` best candidates to `targets`, best first. `order` compares positions in
/// `candidates`, the better one is `Less`; it must be a total order.
///
/// Linear in the candidates plus the sort of the chosen. Works in `targets`, so that it allocates
/// only until that buffer has once held all candidates.
pub(crate) fn take_best(
    candidates: &[EndpointIx],
    count: usize,
    targets: &mut Vec<EndpointIx>,
    mut order: impl FnMut(EndpointIx, EndpointIx) -> Ordering,
) {
    let start = targets.len();
    targets.extend((0..).take(candidates.len()));
    let positions = &mut targets[start..];
    if count < positions.len() {
        positions.select_nth_unstable_by(count, |&a, &b| order(a, b));
        targets.truncate(start + count);
    }
    let chosen = &mut targets[start..];
    chosen.sort_unstable_by(|&a, &b| order(a, b));
    for target in chosen {
        *target = candidates[*target as usize];
    }
}
