//! Tiers by name.

use super::counters::Reason;

/// Tiers that a [`Mirror`](crate::Mirror) tells apart.
pub const MOST_TIERS: usize = 8;

/// Bytes that the name of a tier may have.
const LONGEST: usize = 64;

/// The media that engines name, in lower case; the position of a name is its tier.
#[derive(Clone, Debug)]
pub(super) struct Tiers(Vec<String>);

impl Tiers {
    /// `gpu` and `cpu`, and after them `more`.
    pub(super) fn new<'a>(more: impl IntoIterator<Item = &'a str>) -> Self {
        let mut tiers = Self(vec!["gpu".into(), "cpu".into()]);
        for name in more {
            // What does not fit is told again when it is stored.
            let _ = tiers.learn(Some(name));
        }
        tiers
    }

    pub(super) fn names(&self) -> &[String] {
        &self.0
    }

    /// The tier of a medium; none is the GPU.
    pub(super) fn find(&self, medium: Option<&str>) -> Option<u8> {
        let name = medium.filter(|name| !name.is_empty()).unwrap_or("gpu");
        let found = self.0.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        u8::try_from(found).ok()
    }

    /// The tier of a medium, a new one if it is the first of its name.
    pub(super) fn learn(&mut self, medium: Option<&str>) -> Result<u8, Reason> {
        if let Some(tier) = self.find(medium) {
            return Ok(tier);
        }
        let name = medium.unwrap_or_default();
        if self.0.len() >= MOST_TIERS || name.len() > LONGEST {
            return Err(Reason::TooManyTiers);
        }
        self.0.push(name.to_ascii_lowercase());
        self.find(medium).ok_or(Reason::TooManyTiers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_are_tiers_whatever_their_case() {
        let mut tiers = Tiers::new(["storage", "gpu"]);
        assert_eq!(tiers.names(), ["gpu", "cpu", "storage"]);
        for (medium, tier) in [(None, 0), (Some(""), 0), (Some("CPU"), 1), (Some("Storage"), 2)] {
            assert_eq!(tiers.learn(medium), Ok(tier));
        }
        assert_eq!(tiers.find(Some("disk")), None);
        assert_eq!(tiers.learn(Some("DISK")), Ok(3));
        assert_eq!(tiers.names()[3], "disk");
    }

    #[test]
    fn there_are_eight_tiers() {
        let mut tiers = Tiers::new(["a", "b", "c", "d", "e", "f", "g"]);
        assert_eq!(tiers.names().len(), MOST_TIERS);
        assert_eq!(tiers.learn(Some("h")), Err(Reason::TooManyTiers));
        assert_eq!(Tiers::new([]).learn(Some(&"x".repeat(65))), Err(Reason::TooManyTiers));
    }
}
