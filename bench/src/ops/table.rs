//! The block table: the owner's insertions and the workers' lookups.

use std::hint::black_box;

use inlane_segment::table::{PrefixIndex, PrefixOwner, PrefixSpec, TableSpec};

use super::{Operation, Run};
use crate::Fallible;

/// Memory of the table, as the prefix plugins give it.
const BYTES: usize = 64 << 20;
/// Blocks of the chain that is looked up: a prompt of 128 KB in blocks of 64 tokens.
const CHAIN: usize = 512;
/// Blocks of a chain that is inserted.
const INSERT: usize = 32;

pub(super) fn operations() -> Vec<Operation> {
    let mut operations = vec![
        Operation::new("table/insert-32", insert),
        Operation::new("table/refresh-32", refresh).without_allocation(),
    ];
    for holders in [8, 1_000] {
        operations.push(
            Operation::new(format!("table/count-matches-512/{holders}"), move || {
                lookup(holders, |index, chain, out| index.table().count_matches(chain, out))
            })
            .without_allocation(),
        );
        operations.push(
            Operation::new(format!("table/longest-prefix-512/{holders}"), move || {
                lookup(holders, |index, chain, out| index.table().longest_prefix(chain, out))
            })
            .without_allocation(),
        );
    }
    operations
}

fn index(slots: usize) -> Fallible<(PrefixIndex, PrefixOwner)> {
    let spec = PrefixSpec { table: TableSpec::within(slots, BYTES), picks: 8, chain: CHAIN };
    Ok(PrefixIndex::new(&spec)?)
}

/// Chains that were never seen, spread over the slots; the table is full and makes room.
fn insert() -> Fallible<Run> {
    let (_, mut owner) = index(8)?;
    let mut rng = fastrand::Rng::with_seed(1);
    let mut slot = 0;
    let mut once = move || {
        let chain: [u64; INSERT] = std::array::from_fn(|_| rng.u64(..));
        slot = (slot + 1) % 8;
        owner.table().insert_chain(slot, black_box(&chain));
    };
    (0..8_000).for_each(|_| once());
    Ok(Box::new(once))
}

/// A chain that its slot holds already: only its recency changes.
fn refresh() -> Fallible<Run> {
    let (_, mut owner) = index(8)?;
    let mut rng = fastrand::Rng::with_seed(1);
    let chain: [u64; INSERT] = std::array::from_fn(|_| rng.u64(..));
    Ok(Box::new(move || {
        owner.table().insert_chain(3, black_box(&chain));
    }))
}

/// A chain of which slot `i` of `holders` holds the first `(i + 1) / holders`.
fn lookup(
    holders: usize,
    find: impl Fn(&PrefixIndex, &[u64], &mut [u32]) -> usize + 'static,
) -> Fallible<Run> {
    let (index, mut owner) = index(holders)?;
    let mut rng = fastrand::Rng::with_seed(1);
    let chain: Vec<u64> = std::iter::repeat_with(|| rng.u64(..)).take(CHAIN).collect();
    for slot in 0..holders {
        let held = CHAIN * (slot + 1) / holders;
        owner.table().insert_chain(u16::try_from(slot)?, &chain[..held]);
    }
    let mut out = vec![0; holders];
    Ok(Box::new(move || {
        out.fill(0);
        let matched = find(&index, black_box(&chain), &mut out);
        assert_eq!(matched, CHAIN);
    }))
}
