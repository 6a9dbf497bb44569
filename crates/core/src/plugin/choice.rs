//! Roles that make the choice: filters, scorers, pickers, profile handlers and their deciders.

use crate::decision::{Decision, PluginError, ProfileIx, ScheduleError};
use crate::endpoint::EndpointIx;

use super::view::{Candidates, Cycle};

/// Says whether a stage of disaggregated serving should run, for a profile handler.
pub trait Decider: Send + Sync {
    /// Whether to run the stage; `decode` is where the request will be decoded, when that is known.
    ///
    /// # Errors
    /// A decider that fails says no.
    fn decide(&self, cx: &Cycle<'_>, decode: Option<EndpointIx>) -> Result<bool, PluginError>;
}

/// Drops endpoints that must not serve the request.
pub trait Filter: Send + Sync {
    /// Whether the verdict depends on the endpoint's metadata alone. Such a filter is run once per
    /// topology, not once per request.
    fn is_static(&self) -> bool {
        false
    }

    /// Drops endpoints from `candidates`.
    ///
    /// # Errors
    /// A filter that fails is skipped: everything it was given stays.
    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError>;
}

/// What a scorer is after, informational.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// Wants requests together that share something.
    Affinity,
    /// Weighs both.
    Balance,
    /// Wants load spread.
    Distribution,
}

/// Rates endpoints.
pub trait Scorer: Send + Sync {
    /// What the scorer is after.
    fn category(&self) -> Category;

    /// Whether the scores come from the engine's metrics. Such a scorer is given only endpoints
    /// whose metrics are fresh; the others get the mean of its scores.
    fn reads_metrics(&self) -> bool {
        false
    }

    /// Writes a score for each candidate into `out` (parallel, preset to NaN = not scored).
    /// Nominally 0 to 1; the cycle clamps, weighs and adds. NaN contributes 0.
    ///
    /// # Errors
    /// A scorer that fails contributes 0 for every endpoint.
    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError>;
}

/// A scorer that rates one endpoint at a time with an integer, or declines with an error.
///
/// The form in which many people write their first scorer. [`Normalized`] turns it into a
/// [`Scorer`].
pub trait IntegerScorer: Send + Sync {
    /// What the scorer is after.
    fn category(&self) -> Category;

    /// The score of one endpoint, on any scale, higher is better.
    ///
    /// # Errors
    /// An endpoint for which the scorer fails is not scored.
    fn score(&self, cx: &Cycle<'_>, endpoint: EndpointIx) -> Result<i64, PluginError>;
}

/// Normalises an [`IntegerScorer`] to `[0, 1]`: `(s - min) / (max - min)` over the candidates that
/// have a score, 1 for all when they are equal.
#[derive(Debug)]
pub struct Normalized<S>(
    /// The integer scorer.
    pub S,
);

impl<S: IntegerScorer> Scorer for Normalized<S> {
    fn category(&self) -> Category {
        self.0.category()
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        let mut last_error = None;
        for (&endpoint, out) in candidates.iter().zip(&mut *out) {
            match self.0.score(cx, endpoint) {
                Ok(score) => {
                    *out = score as f64;
                    min = min.min(*out);
                    max = max.max(*out);
                }
                Err(error) => last_error = Some(error),
            }
        }
        for out in out.iter_mut().filter(|out| !out.is_nan()) {
            *out = if max == min { 1.0 } else { (*out - min) / (max - min) };
        }
        match last_error {
            Some(error) if min > max => Err(error),
            _ => Ok(()),
        }
    }
}

/// Chooses among scored endpoints.
pub trait Picker: Send + Sync {
    /// Appends the chosen endpoints to `targets`, best first. `totals` is parallel to
    /// `candidates`, which is not empty.
    ///
    /// # Errors
    /// A picker that fails is replaced by the endpoint with the highest total.
    fn pick(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        totals: &[f64],
        targets: &mut Vec<EndpointIx>,
    ) -> Result<(), PluginError>;
}

/// What a profile handler wants next.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Round {
    /// Profiles to run; none = done.
    pub run: Vec<ProfileIx>,
    /// Profiles that were considered and will not run.
    pub skip: Vec<ProfileIx>,
    /// The endpoint that the profiles of this round and later ones should be close to.
    pub peer: Option<EndpointIx>,
}

/// The result that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Primary {
    /// The profile whose targets are the destination.
    pub profile: ProfileIx,
    /// Port to send the request to instead of the target's own.
    pub port: Option<u16>,
}

impl From<ProfileIx> for Primary {
    fn from(profile: ProfileIx) -> Self {
        Self { profile, port: None }
    }
}

/// Decides which profiles run, and what their results mean.
pub trait ProfileHandler: Send + Sync {
    /// Called with the number of configured profiles while the configuration is loaded.
    ///
    /// # Errors
    /// What is wrong with the combination.
    fn validate(&self, profiles: &[String]) -> Result<(), String> {
        let _ = profiles;
        Ok(())
    }

    /// Fills in the next round. Called again after every round with the results so far, until a
    /// round runs nothing.
    ///
    /// # Errors
    /// Ends the decision.
    fn next(
        &self,
        cx: &Cycle<'_>,
        decision: &Decision,
        round: &mut Round,
    ) -> Result<(), ScheduleError>;

    /// Names the primary profile among the results.
    ///
    /// # Errors
    /// Ends the decision.
    fn primary(&self, cx: &Cycle<'_>, decision: &Decision) -> Result<Primary, ScheduleError>;
}
