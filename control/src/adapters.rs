//! LoRA adapter names as bits.
//!
//! A row has two 64-bit sets of adapters. This table gives names their bits; it travels with the
//! topology. A name keeps its bit for as long as nobody else needs it, so the table changes seldom;
//! when all bits are taken, one whose adapter no endpoint has gets a new name.

/// Adapters that the sets can tell apart.
const BITS: usize = 64;

/// The names, by bit.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Adapters {
    names: Vec<String>,
}

impl Adapters {
    /// A table with these names; those past the last bit are dropped.
    pub(crate) fn new(mut names: Vec<String>) -> Self {
        names.truncate(BITS);
        Self { names }
    }

    /// The names, by bit.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The set of `names`. New ones get a bit, if need be one outside of `in_use`; says whether the
    /// table changed. Names for which there is no bit are left out and counted.
    pub(crate) fn set<'n>(
        &mut self,
        names: impl Iterator<Item = &'n str>,
        in_use: impl Fn() -> u64,
    ) -> Bits {
        let mut bits = Bits::default();
        for name in names {
            let bit = match self.names.iter().position(|known| known == name) {
                Some(bit) => Some(bit),
                None if self.names.len() < BITS => {
                    self.names.push(name.to_owned());
                    bits.table_changed = true;
                    Some(self.names.len() - 1)
                }
                None => {
                    let free = (!(in_use() | bits.set)).trailing_zeros() as usize;
                    self.names.get_mut(free).map(|old| {
                        name.clone_into(old);
                        bits.table_changed = true;
                        free
                    })
                }
            };
            match bit {
                Some(bit) => bits.set |= 1 << bit,
                None => bits.left_out += 1,
            }
        }
        bits
    }
}

/// A set of adapters, and what making it did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bits {
    /// One bit per adapter.
    pub(crate) set: u64,
    /// Whether a name is new in the table.
    pub(crate) table_changed: bool,
    /// Names without a bit.
    pub(crate) left_out: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_bits() {
        let mut table = Adapters::default();
        let first = table.set(["a", "b"].into_iter(), || 0);
        assert_eq!(first, Bits { set: 0b11, table_changed: true, left_out: 0 });
        let again = table.set(["b", "a", "b"].into_iter(), || 0);
        assert_eq!(again, Bits { set: 0b11, table_changed: false, left_out: 0 });
        assert_eq!(table.names(), ["a", "b"]);
    }

    #[test]
    fn a_full_table_reuses_only_what_nobody_has() {
        let mut table = Adapters::new((0..70).map(|n| format!("old{n}")).collect());
        let bits = table.set(["new"].into_iter(), || !(1 << 7));
        assert_eq!(bits, Bits { set: 1 << 7, table_changed: true, left_out: 0 });
        assert_eq!(table.names()[7], "new");
        let bits = table.set(["x"].into_iter(), || u64::MAX);
        assert_eq!(bits, Bits { set: 0, table_changed: false, left_out: 1 });
    }

    #[test]
    fn bits_of_the_set_at_hand_are_not_taken_from_it() {
        let mut table = Adapters::new((0..64).map(|n| format!("old{n}")).collect());
        let names: Vec<String> = (0..70).map(|n| format!("new{n}")).collect();
        let bits = table.set(names.iter().map(String::as_str), || 0);
        assert_eq!((bits.set, bits.left_out), (u64::MAX, 6));
    }
}
