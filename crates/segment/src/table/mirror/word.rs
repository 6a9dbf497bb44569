//! The holders word of a mirror.
//!
//! The set is encoded as in the block table ([`holders`](super::super::holders)), without an owner.
//! The bits that are a version there say what else there is to know of the entry:
//!
//! ```text
//!  63    54 53  52  51 50   48 47           0
//! |   0    | C | T | A |  tier |     set      |
//! ```
//!
//! * **A**: some holder has aliases here. Stays until the entry is freed.
//! * **T**: another entry has the same engine hash, in the same tier. Stays as well.
//! * **C**: the block is the child of the block in the entry before. Stays until one of the two is freed.
//!
//! The word of a free entry is zero.

use super::super::holders::Holders;

const TIER_SHIFT: u32 = 48;
const TIER_MASK: u64 = 7;
const SET_MASK: u64 = (1 << TIER_SHIFT) - 1;
/// Bits that say what else there is to know.
pub(super) struct Flags;

impl Flags {
    pub(super) const ALIASED: u64 = 1 << 51;
    pub(super) const TWIN: u64 = 1 << 52;
    pub(super) const CHILD: u64 = 1 << 53;
}

/// What a reader compares: the set and the tier.
pub(super) const SEEN: u64 = SET_MASK | TIER_MASK << TIER_SHIFT;

pub(super) const FREE: Holders = Holders(0);

pub(super) trait Word: Copy {
    /// The same set, in the tier, with no flags.
    fn in_tier(self, tier: u8) -> Self;
    /// The same entry with another set.
    fn with_set(self, set: Self) -> Self;
    fn aliased(self) -> Self;
    fn twin(self) -> Self;
    /// Whether the block is the child of the block in the entry before.
    fn child_if(self, is: bool) -> Self;
    fn set(self) -> Self;
    fn tier(self) -> u8;
    fn is_aliased(self) -> bool;
    fn is_twin(self) -> bool;
    fn is_child(self) -> bool;
}

impl Word for Holders {
    fn in_tier(self, tier: u8) -> Self {
        Self(self.0 & SET_MASK | u64::from(tier) << TIER_SHIFT)
    }

    #[inline]
    fn with_set(self, set: Self) -> Self {
        Self(self.0 & !SET_MASK | set.0 & SET_MASK)
    }

    fn aliased(self) -> Self {
        Self(self.0 | Flags::ALIASED)
    }

    fn twin(self) -> Self {
        Self(self.0 | Flags::TWIN)
    }

    #[inline]
    fn child_if(self, is: bool) -> Self {
        Self(self.0 & !Flags::CHILD | if is { Flags::CHILD } else { 0 })
    }

    #[inline]
    fn set(self) -> Self {
        Self(self.0 & SET_MASK)
    }

    #[inline]
    fn tier(self) -> u8 {
        (self.0 >> TIER_SHIFT & TIER_MASK) as u8
    }

    #[inline]
    fn is_aliased(self) -> bool {
        self.0 & Flags::ALIASED != 0
    }

    #[inline]
    fn is_twin(self) -> bool {
        self.0 & Flags::TWIN != 0
    }

    #[inline]
    fn is_child(self) -> bool {
        self.0 & Flags::CHILD != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_do_not_touch_the_set() {
        let set = Holders::single(16_383, 0).with_lane(2, Some(9));
        let word = set.in_tier(5).aliased().twin();
        assert_eq!((word.set(), word.tier()), (set, 5));
        assert!(word.is_aliased() && word.is_twin());
        let other = Holders::single(3, 0);
        let word = word.with_set(other);
        assert_eq!((word.set(), word.tier()), (other, 5));
        assert!(word.is_aliased() && word.is_twin());
        assert_eq!(word.0 & SEEN, other.in_tier(5).0);
        assert!(!other.in_tier(5).is_aliased() && !other.in_tier(5).is_twin());
    }
}
