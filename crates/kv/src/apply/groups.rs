//! The KV-cache groups of a publisher.

use super::counters::Reason;
use crate::kind::CacheKind;

/// Groups that one publisher may have; hybrid models have two to four.
const MOST: usize = 64;

/// What a publisher has told of its groups: the kind comes with stores only, and not with all.
#[derive(Debug, Default)]
pub(super) struct Groups {
    known: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    index: u32,
    /// vLLM 0.20 numbers groups without saying what they are.
    kind: Option<CacheKind>,
}

/// What learning of a group came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Learned {
    pub(super) kind: CacheKind,
    /// Why its blocks cannot be used.
    pub(super) refused: Option<Reason>,
    /// A group of unknown kind was taken for the only one, and is not: what it stored is void.
    pub(super) mistaken: bool,
}

impl Groups {
    /// A store by group `index`.
    pub(super) fn learn(&mut self, index: u32, kind: Option<&str>) -> Learned {
        let kind = kind.filter(|kind| !kind.is_empty()).map(CacheKind::from_name);
        let mut mistaken = false;
        if let Some(group) = self.known.iter_mut().find(|group| group.index == index) {
            group.kind = kind.or(group.kind);
        } else if self.known.len() < MOST {
            mistaken = matches!(*self.known, [Group { kind: None, .. }]);
            self.known.push(Group { index, kind });
        } else {
            let kind = kind.unwrap_or(CacheKind::Unknown);
            return Learned { kind, refused: Some(Reason::TooManyGroups), mistaken };
        }
        let kind = self.kind(index).unwrap_or(CacheKind::Unknown);
        let refused = (!self.is_indexable(index)).then_some(Reason::UnsupportedCacheKind);
        Learned { kind, refused, mistaken }
    }

    /// Whether blocks can be removed from group `index`, and the kind it has.
    pub(super) fn check(&self, index: u32) -> Result<(), (CacheKind, Reason)> {
        match self.kind(index) {
            None => Err((CacheKind::Unknown, Reason::UnknownGroup)),
            Some(kind) if !self.is_indexable(index) => Err((kind, Reason::UnsupportedCacheKind)),
            Some(_) => Ok(()),
        }
    }

    /// Whether nothing has been told.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether the same hash may be held by more than one group.
    pub(super) fn several_indexable(&self) -> bool {
        self.known.iter().filter(|group| self.is_indexable(group.index)).nth(1).is_some()
    }

    fn kind(&self, index: u32) -> Option<CacheKind> {
        let group = self.known.iter().find(|group| group.index == index)?;
        Some(group.kind.unwrap_or(CacheKind::Unknown))
    }

    /// A group that does not tell its kind is one of full attention as long as it is the only one:
    /// models of a single other kind have no prefix cache worth the name.
    fn is_indexable(&self, index: u32) -> bool {
        let sole = self.known.len() == 1;
        let group = self.known.iter().find(|group| group.index == index);
        group.is_some_and(|group| group.kind.map_or(sole, CacheKind::is_prefix_indexable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_once_told_is_remembered() {
        let mut groups = Groups::default();
        assert_eq!(groups.check(1), Err((CacheKind::Unknown, Reason::UnknownGroup)));
        groups.learn(0, Some("sliding_window"));
        let learned = groups.learn(1, Some("full_attention"));
        assert_eq!((learned.kind, learned.refused), (CacheKind::FullAttention, None));
        assert_eq!(groups.learn(1, None), learned);
        assert_eq!(groups.check(1), Ok(()));
        let refused = (CacheKind::SlidingWindow, Reason::UnsupportedCacheKind);
        assert_eq!(groups.check(0), Err(refused));
        assert_eq!(groups.learn(0, Some("")).refused, Some(refused.1));
    }

    #[test]
    fn a_group_without_a_kind_counts_while_it_is_the_only_one() {
        let mut groups = Groups::default();
        let expected = Learned { kind: CacheKind::Unknown, refused: None, mistaken: false };
        assert_eq!(groups.learn(0, None), expected);
        let refused = Some(Reason::UnsupportedCacheKind);
        assert_eq!(groups.learn(1, None), Learned { refused, mistaken: true, ..expected });
        assert_eq!(groups.learn(0, None), Learned { refused, mistaken: false, ..expected });
    }

    #[test]
    fn a_publisher_has_so_many_groups() {
        let mut groups = Groups::default();
        for index in 0..64 {
            groups.learn(index, Some("full_attention"));
        }
        assert!(groups.several_indexable());
        assert_eq!(groups.learn(64, Some("mamba")).refused, Some(Reason::TooManyGroups));
    }
}
