//! Whose blocks are in which slot.
//!
//! A slot's blocks belong to one tenant: the first that is [admitted](Tenants::admit), until the owner
//! learns from the topology that it has left ([`Tenants::retain`]). Workers ask and move in without
//! lock or wait; one owner at a time evicts.

use std::sync::atomic::{AtomicU64, Ordering};

use inlane_core::endpoint::{EndpointSet, Slot};

/// Bits of a slot's generation that tell tenants apart.
const GENERATION_BITS: u32 = 12;

/// The tenants of all slots.
#[derive(Debug)]
pub(crate) struct Tenants(Box<[AtomicU64]>);

impl Tenants {
    /// Nobody in any of `slots` slots.
    pub(crate) fn new(slots: usize) -> Self {
        Self((0..slots).map(|_| AtomicU64::new(Tenant::NOBODY.0)).collect())
    }

    /// Whether the blocks in the slot are those of this tenant.
    pub(crate) fn is_tenant(&self, slot: Slot) -> bool {
        let found = self.0.get(slot.index as usize);
        found.is_some_and(|t| t.load(Ordering::Acquire) == Tenant::of(slot.generation).0)
    }

    /// Whether blocks may be added for this tenant, which moves in where nobody is.
    pub(crate) fn admit(&self, slot: Slot) -> bool {
        let Some(cell) = self.0.get(slot.index as usize) else { return false };
        let wanted = Tenant::of(slot.generation);
        let found = Tenant(cell.load(Ordering::Acquire));
        if found == wanted {
            return true;
        }
        // Who loses the race to move in tries again with the next request.
        let (order, failure) = (Ordering::AcqRel, Ordering::Relaxed);
        found.admits(slot.generation)
            && cell.compare_exchange(found.0, wanted.0, order, failure).is_ok()
    }

    /// Lets tenants go that are no longer in the pool, and calls `clear` with their slots. For the
    /// owner.
    pub(crate) fn retain(&self, endpoints: &EndpointSet, mut clear: impl FnMut(u16)) {
        let mut present = vec![None; self.0.len()];
        for endpoint in endpoints.as_slice() {
            if let Some(cell) = present.get_mut(endpoint.slot.index as usize) {
                *cell = Some(endpoint.slot.generation);
            }
        }
        for ((slot, cell), present) in (0..).zip(&self.0).zip(present) {
            let found = Tenant(cell.load(Ordering::Acquire));
            // A tenant that is newer than this topology stays.
            let stays = present.is_some_and(|now| !is_after(now, found.generation()));
            if !found.is_held() || stays {
                continue;
            }
            // First the tenant, so that nobody is credited with blocks while they go.
            cell.store(found.left().0, Ordering::Release);
            clear(slot);
        }
    }
}

/// The word that names a slot's tenant.
///
/// 0 is nobody yet. A tenant is `HELD` and its generation. Once it has left, the word keeps the
/// generation without `HELD`, so that late picks are still recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tenant(u64);

impl Tenant {
    const NOBODY: Self = Self(0);
    const HELD: u64 = 1 << 32;
    const LEFT: u64 = 1 << 33;

    fn of(generation: u32) -> Self {
        Self(Self::HELD | u64::from(generation))
    }

    fn left(self) -> Self {
        Self(Self::LEFT | u64::from(self.generation()))
    }

    fn is_held(self) -> bool {
        self.0 & Self::HELD != 0
    }

    fn generation(self) -> u32 {
        self.0 as u32
    }

    /// Whether an endpoint of `generation` may move in where this was found.
    fn admits(self, generation: u32) -> bool {
        self == Self::NOBODY || !self.is_held() && is_after(generation, self.generation())
    }
}

/// Whether `a` is a later generation than `b`, in serial-number arithmetic.
fn is_after(a: u32, b: u32) -> bool {
    let mask = (1 << GENERATION_BITS) - 1;
    let distance = a.wrapping_sub(b) & mask;
    distance != 0 && distance < 1 << (GENERATION_BITS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_wrap() {
        assert!(is_after(0, 0xfff) && !is_after(0xfff, 0));
        assert!(!is_after(5, 5) && is_after(6, 5) && !is_after(4, 5));
    }

    #[test]
    fn a_slot_has_one_tenant_until_it_leaves() {
        let tenants = Tenants::new(2);
        let of = |index, generation| Slot { index, generation };
        assert!(tenants.admit(of(0, 1)) && tenants.is_tenant(of(0, 1)));
        assert!(!tenants.admit(of(0, 2)) && !tenants.admit(of(2, 1)));
        let mut cleared = Vec::new();
        tenants.retain(&EndpointSet::default(), |slot| cleared.push(slot));
        assert_eq!(cleared, [0]);
        assert!(!tenants.admit(of(0, 1)), "late");
        assert!(tenants.admit(of(0, 2)));
    }
}
