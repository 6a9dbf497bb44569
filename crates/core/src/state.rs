//! Per-cycle state: what a plugin carries from one of its hooks to the next within a request.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

/// State that lives for one decision and is reused by the next.
pub trait CycleData: Any + Default + Send {
    /// Forgets the last request, keeps the memory.
    fn clear(&mut self);

    /// Appends what filters, scorers, pickers and handlers read of it, so that a recorded decision
    /// can be repeated. State that only effects read needs no record.
    fn record(&self, words: &mut Vec<u64>) {
        let _ = words;
    }

    /// Takes over what [`record`](Self::record) wrote; the words may come from anywhere.
    fn restore(&mut self, words: &[u64]) {
        let _ = words;
    }
}

trait AnyData: Any + Send {
    fn clear(&mut self);
    fn record(&self, words: &mut Vec<u64>);
    fn restore(&mut self, words: &[u64]);
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<T: CycleData> AnyData for T {
    fn clear(&mut self) {
        CycleData::clear(self);
    }
    fn record(&self, words: &mut Vec<u64>) {
        CycleData::record(self, words);
    }
    fn restore(&mut self, words: &[u64]) {
        CycleData::restore(self, words);
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// Handle of a plugin's state, given out while the configuration is loaded.
pub struct StateSlot<T> {
    index: u16,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for StateSlot<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for StateSlot<T> {}

impl<T> fmt::Debug for StateSlot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateSlot({})", self.index)
    }
}

/// Declares the states of a configuration; makes a [`CycleState`] per worker.
#[derive(Default, Clone)]
pub struct StateLayout {
    make: Vec<Declared>,
}

#[derive(Clone)]
struct Declared {
    owner: String,
    make: fn() -> Box<dyn AnyData>,
}

impl fmt::Debug for StateLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateLayout").field("states", &self.make.len()).finish()
    }
}

impl StateLayout {
    /// Declares a state of type `T` that belongs to `owner`.
    pub fn declare<T: CycleData>(&mut self, owner: &str) -> StateSlot<T> {
        let index = u16::try_from(self.make.len()).unwrap_or(u16::MAX);
        self.make.push(Declared { owner: owner.to_owned(), make: || Box::new(T::default()) });
        StateSlot { index, kind: PhantomData }
    }

    /// The owners of the states, in the order of declaration.
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        self.make.iter().map(|declared| declared.owner.as_str())
    }

    /// Makes the states.
    pub fn instantiate(&self) -> CycleState {
        CycleState {
            states: self.make.iter().map(|declared| (declared.make)()).collect(),
            attributes: Vec::new(),
        }
    }
}

/// A text that a plugin found out about a request, for others to read: a session id, the identity
/// of an agent.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestAttribute {
    /// What it is.
    pub name: Cow<'static, str>,
    /// Instance that published it; empty = nobody in particular.
    pub producer: String,
    /// The text.
    pub value: String,
}

/// The states of all plugins of a configuration, for one worker.
#[derive(Default)]
pub struct CycleState {
    states: Vec<Box<dyn AnyData>>,
    attributes: Vec<RequestAttribute>,
}

impl fmt::Debug for CycleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CycleState").field("states", &self.states.len()).finish()
    }
}

impl CycleState {
    /// Forgets the last request.
    pub fn clear(&mut self) {
        for state in &mut self.states {
            state.clear();
        }
        self.attributes.clear();
    }

    /// Writes down the state at `index`, see [`CycleData::record`].
    pub fn record(&self, index: usize, words: &mut Vec<u64>) {
        if let Some(state) = self.states.get(index) {
            state.record(words);
        }
    }

    /// Brings the state at `index` back.
    pub fn restore(&mut self, index: usize, words: &[u64]) {
        if let Some(state) = self.states.get_mut(index) {
            state.restore(words);
        }
    }

    /// The request attribute that `producer` published as `name`.
    pub fn attribute(&self, name: &str, producer: &str) -> Option<&str> {
        let mut known = self.attributes.iter();
        known.find(|a| a.name == name && a.producer == producer).map(|a| a.value.as_str())
    }

    /// All request attributes.
    pub fn attributes(&self) -> &[RequestAttribute] {
        &self.attributes
    }

    /// Publishes a request attribute, replacing an earlier one.
    pub fn set_attribute(&mut self, attribute: RequestAttribute) {
        let same = |a: &&mut RequestAttribute| {
            a.name == attribute.name && a.producer == attribute.producer
        };
        match self.attributes.iter_mut().find(same) {
            Some(known) => *known = attribute,
            None => self.attributes.push(attribute),
        }
    }

    /// A plugin's state; `None` with a slot of another configuration.
    pub fn get<T: CycleData>(&self, slot: StateSlot<T>) -> Option<&T> {
        let state: &dyn AnyData = &**self.states.get(usize::from(slot.index))?;
        state.as_any().downcast_ref()
    }

    /// A plugin's state, to write.
    pub fn get_mut<T: CycleData>(&mut self, slot: StateSlot<T>) -> Option<&mut T> {
        let state: &mut dyn AnyData = &mut **self.states.get_mut(usize::from(slot.index))?;
        state.as_any_mut().downcast_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Hashes(Vec<u64>);

    impl CycleData for Hashes {
        fn clear(&mut self) {
            self.0.clear();
        }
    }

    #[test]
    fn states_are_separate_and_cleared() {
        let mut layout = StateLayout::default();
        let (a, b) = (layout.declare::<Hashes>("a"), layout.declare::<Hashes>("b"));
        let mut state = layout.instantiate();
        state.get_mut(a).unwrap().0.push(1);
        assert!(state.get(b).unwrap().0.is_empty());
        state.clear();
        assert!(state.get(a).unwrap().0.is_empty());
        assert!(CycleState::default().get(a).is_none());
    }
}
