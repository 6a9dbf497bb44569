//! `bounded-load-hash-picker`: equal keys to the same endpoint, unless it is overloaded.

use std::sync::Arc;

use inlane_core::columns::{Col, InFlight};
use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Cycle, Picker, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType, TOKENIZED_PROMPT};
use inlane_core::request::{BlockUnit, Prompt};
use serde::Deserialize;
use xxhash_rust::xxh64::{Xxh64, xxh64};

use crate::llmd::session_id_producer::{self, SESSION_ID};
use crate::picking;
use crate::{inflight_load_producer, token_producer};

/// The type `bounded-load-hash-picker`.
pub const TYPE: PluginType = PluginType::new("bounded-load-hash-picker", build);

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// What is hashed.
    key: KeyKind,
    /// Tokens of the prompt that count, with `prefix`.
    prefix_tokens: i64,
    /// The header, with `header`.
    header_name: String,
    /// Instance that publishes the session id, with `session`; empty = `session-id-producer`.
    session_id_producer_name: String,
    /// How far an endpoint may be above the mean load.
    epsilon: f64,
    /// Instance that publishes in-flight load; empty = `inflight-load-producer`.
    in_flight_load_producer_name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KeyKind {
    Fairness,
    Header,
    Prefix,
    Session,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            key: KeyKind::Prefix,
            prefix_tokens: 256,
            header_name: String::new(),
            session_id_producer_name: String::new(),
            epsilon: 0.25,
            in_flight_load_producer_name: String::new(),
        }
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    let epsilon = parameters.epsilon;
    if !(epsilon > 0.0 && epsilon.is_finite()) {
        let message = format!("expected a positive number, found {epsilon}");
        return Err(BuildError::field("epsilon", message));
    }
    let key = match parameters.key {
        KeyKind::Fairness => Key::Fairness,
        KeyKind::Header if parameters.header_name.is_empty() => {
            return Err(BuildError::field("headerName", "must be set when key is header"));
        }
        KeyKind::Header => Key::Header(parameters.header_name.to_ascii_lowercase()),
        KeyKind::Prefix => {
            build.require_key(TOKENIZED_PROMPT, token_producer::TYPE.name);
            let tokens = parameters.prefix_tokens;
            let Some(tokens) = usize::try_from(tokens).ok().filter(|&tokens| tokens > 0) else {
                let message = format!("expected a positive integer, found {tokens}");
                return Err(BuildError::field("prefixTokens", message));
            };
            Key::Prefix(tokens)
        }
        KeyKind::Session => {
            let name = match parameters.session_id_producer_name {
                name if name.is_empty() => session_id_producer::TYPE.name.to_owned(),
                name => name,
            };
            build.require_key(SESSION_ID, &name);
            Key::Session(name)
        }
    };
    let load =
        build.require(&parameters.in_flight_load_producer_name, inflight_load_producer::TYPE.name);
    let salt = u64::from(build.instance());
    Ok(Roles::default().picker(Arc::new(BoundedLoadHashPicker { key, epsilon, load, salt })))
}

/// Where a request's key comes from.
#[derive(Debug)]
enum Key {
    Fairness,
    Header(String),
    Prefix(usize),
    Session(String),
}

/// Picks, among the candidates with fewer requests in flight than
///
/// ```text
/// bound = ceil((1 + epsilon) * (requests in flight at all candidates + 1) / candidates)
/// ```
///
/// the one with the highest hash of key, target model and endpoint id; without a key the one with
/// the highest total, ties at random.
///
/// After Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016
/// (arXiv 1608.01350), with rendezvous hashing (Thaler and Ravishankar, 1998) in place of the ring: no
/// table to keep, and what a full endpoint turns away spreads over all others. The loads add up to
/// less than `bound * candidates`, so somebody is always below the bound.
#[derive(Debug)]
struct BoundedLoadHashPicker {
    key: Key,
    epsilon: f64,
    load: Col<InFlight>,
    salt: u64,
}

impl BoundedLoadHashPicker {
    fn hash(&self, cx: &Cycle<'_>) -> Option<u64> {
        let request = cx.request;
        let seed = xxh64(request.target_model.as_bytes(), 0);
        let text = match &self.key {
            Key::Fairness => Some(request.fairness_id),
            Key::Header(name) => request.headers.get(name),
            Key::Session(producer) => cx.state.attribute(SESSION_ID, producer),
            Key::Prefix(tokens) => return prefix_hash(request.packed().first()?, *tokens, seed),
        };
        let text = text.map(str::trim).filter(|text| !text.is_empty())?;
        Some(xxh64(text.as_bytes(), seed))
    }

    /// The most preferred candidate below the bound.
    fn preferred(&self, cx: &Cycle<'_>, candidates: &[EndpointIx], key: u64) -> Option<EndpointIx> {
        let column = cx.columns.get(self.load);
        let load = |ix: EndpointIx| {
            column.get(ix as usize).copied().flatten().unwrap_or_default().requests
        };
        let total: u64 = candidates.iter().map(|&ix| u64::from(load(ix))).sum();
        let mean = (total + 1) as f64 / candidates.len() as f64;
        let bound = ((1.0 + self.epsilon) * mean).ceil();
        let open = candidates.iter().filter(|&&ix| f64::from(load(ix)) < bound);
        let endpoint = |ix: EndpointIx| cx.endpoints.get(ix).map(|e| e.id.as_bytes());
        let preference = |&&ix: &&EndpointIx| xxh64(endpoint(ix).unwrap_or_default(), key);
        open.max_by_key(preference).copied()
    }
}

/// The hash of the first tokens of a prompt; `None` without any.
fn prefix_hash(prompt: &Prompt<'_>, tokens: usize, seed: u64) -> Option<u64> {
    let mut hash = Xxh64::new(seed);
    match *prompt {
        Prompt::Tokens(ids) => {
            ids.first()?;
            ids.iter().take(tokens).for_each(|id| hash.update(&id.to_le_bytes()));
        }
        Prompt::Blocks { unit, contents, .. } => {
            contents.first()?;
            let block = match unit {
                BlockUnit::Tokens(block) => block as usize,
                BlockUnit::Bytes(bytes) => bytes as usize / 4,
            };
            let blocks = tokens / block.max(1);
            let counted = contents.iter().take(blocks.max(1));
            counted.for_each(|content| hash.update(&content.to_le_bytes()));
        }
    }
    Some(hash.digest())
}

impl Picker for BoundedLoadHashPicker {
    fn pick(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        totals: &[f64],
        targets: &mut Vec<EndpointIx>,
    ) -> Result<(), PluginError> {
        let preferred = self.hash(cx).and_then(|key| self.preferred(cx, candidates, key));
        let best = || picking::best(candidates, totals, cx.rng(self.salt));
        targets.extend(preferred.or_else(best));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::InFlight;
    use inlane_core::endpoint::EndpointIx;
    use inlane_core::request::{BlockUnit, Prompt, Request};
    use inlane_core::state::RequestAttribute;
    use proptest::prelude::*;

    use crate::testing::{Built, World, chi_square, first_picks};

    const NAME: &str = "bounded-load-hash-picker";

    fn world(len: usize, parameters: &str) -> (World, Built) {
        let mut world = World::new(len);
        let picker = world.build(NAME, parameters).unwrap();
        (world, picker)
    }

    fn load(world: &mut World, requests: &[u32]) {
        let column = world.column::<InFlight>("inflight-load-producer");
        for (cell, &requests) in world.columns.get_mut(column).iter_mut().zip(requests) {
            *cell = Some(InFlight { requests, ..Default::default() });
        }
    }

    fn pick(
        world: &World,
        built: &Built,
        request: &Request<'_>,
        among: &[EndpointIx],
    ) -> EndpointIx {
        let mut targets = Vec::new();
        let (picker, totals) = (built.roles.picker.as_ref().unwrap(), vec![0.0; among.len()]);
        picker.pick(&world.cycle(request), among, &totals, &mut targets).unwrap();
        assert_eq!(targets.len(), 1);
        targets[0]
    }

    fn pick_for(world: &World, built: &Built, user: &str) -> EndpointIx {
        pick(world, built, &Request { fairness_id: user, ..Default::default() }, &world.all())
    }

    const FAIRNESS: &str = "{key: fairness}";

    #[test]
    fn keys_spread_evenly_and_stay() {
        let (world, picker) = world(5, FAIRNESS);
        let mut counts = vec![0; 5];
        for user in 0..10_000 {
            counts[pick_for(&world, &picker, &format!("user-{user}")) as usize] += 1;
        }
        // 99.9 % quantile for 4 degrees of freedom.
        assert!(chi_square(&counts, &[0.2; 5]) < 18.47, "{counts:?}");
        let (mut later, first) = (world, "user-1");
        let before = pick_for(&later, &picker, first);
        later.seed += 1;
        assert_eq!(pick_for(&later, &picker, first), before);
    }

    #[test]
    fn an_endpoint_that_leaves_moves_its_keys_only() {
        let (world, picker) = world(5, FAIRNESS);
        for user in 0..200 {
            let user = format!("user-{user}");
            let request = Request { fairness_id: &user, ..Default::default() };
            let with = pick(&world, &picker, &request, &[0, 1, 2, 3, 4]);
            let without = pick(&world, &picker, &request, &[0, 1, 3, 4]);
            assert!(with == without || with == 2);
        }
    }

    #[test]
    fn a_full_endpoint_hands_over() {
        let (mut world, picker) = world(4, FAIRNESS);
        let home = pick_for(&world, &picker, "u");
        // Bound ceil(1.25 * 20 / 4) = 7.
        let mut requests = [4; 4];
        requests[home as usize] = 6;
        requests[(home as usize + 1) % 4] = 5;
        load(&mut world, &requests);
        assert_eq!(pick_for(&world, &picker, "u"), home);
        requests[home as usize] = 7;
        requests[(home as usize + 1) % 4] = 4;
        load(&mut world, &requests);
        assert_ne!(pick_for(&world, &picker, "u"), home);
    }

    #[test]
    fn without_a_key_the_best_total_wins() {
        let (mut world, picker) = world(3, "{key: header, headerName: X-User}");
        let counts = first_picks(&mut world, &picker, &[0.5, 0.5, 0.1], 2_000);
        // 99.9 % quantile for 1 degree of freedom.
        assert!(chi_square(&counts, &[0.5, 0.5, 0.0]) < 10.83, "{counts:?}");
        assert_eq!(world.pick(&picker, &[f64::NAN; 1]), [0]);
    }

    #[test]
    fn every_kind_of_key_is_read() {
        let ids: Vec<u32> = (0..400).collect();
        let other: Vec<u32> = (0..256).chain(900..1_000).collect();
        let moved = |parameters: &str, a: &Request<'_>, b: &Request<'_>| {
            let (world, picker) = world(64, parameters);
            let all = world.all();
            pick(&world, &picker, a, &all) != pick(&world, &picker, b, &all)
        };
        let prompt = |ids| [Prompt::Tokens(ids)];
        let (long, same, short) = (prompt(&ids), prompt(&other), prompt(&ids[1..]));
        let of = |prompts| Request { prompts, ..Default::default() };
        assert!(!moved("", &of(&long), &of(&same)));
        assert!(moved("", &of(&long), &of(&short)));
        assert!(moved("{prefixTokens: 300}", &of(&long), &of(&same)));
        let block =
            |contents| [Prompt::Blocks { unit: BlockUnit::Tokens(128), tokens: 0, contents }];
        let (three, two, one) = (block(&[1, 2, 3]), block(&[1, 2, 9]), block(&[1]));
        assert!(!moved("", &of(&three), &of(&two)));
        assert!(moved("", &of(&three), &of(&one)));
        let header = |value| [("x-user", value)];
        let (a, b) = (header("a"), header("b"));
        let with = |headers| Request { headers, ..Default::default() };
        let (a, b) = (with(&a), with(&b));
        assert!(moved("{key: header, headerName: X-User}", &a, &b));
        let model = |target_model| Request { target_model, fairness_id: "u", ..Default::default() };
        assert!(moved(FAIRNESS, &model("m"), &model("n")));
    }

    #[test]
    fn sessions_are_request_attributes() {
        let (mut world, picker) = world(64, "{key: session}");
        let mut pick_session = |value: &str| {
            let (name, producer) = ("SessionIDDataKey".into(), "session-id-producer".to_owned());
            let value = value.to_owned();
            world.state.set_attribute(RequestAttribute { name, producer, value });
            pick(&world, &picker, &Request::default(), &world.all())
        };
        let first = pick_session("one");
        assert_ne!(pick_session("two"), first);
        assert_eq!(pick_session("one"), first);
    }

    #[test]
    fn parameters_are_checked() {
        let mut world = World::new(0);
        for (parameters, field) in [
            ("{epsilon: 0}", "epsilon"),
            ("{epsilon: .nan}", "epsilon"),
            ("{key: header}", "headerName"),
            ("{key: colour}", "key"),
            ("{prefixTokens: 0}", "prefixTokens"),
            ("{replicas: 3}", "replicas"),
        ] {
            let error = world.build(NAME, parameters).err().expect(parameters);
            assert_eq!(error.field.as_deref(), Some(field), "{parameters}");
        }
    }

    proptest! {
        #[test]
        fn nobody_is_loaded_beyond_the_bound(
            requests in proptest::collection::vec(0..50u32, 1..40),
            key in "[a-z]{1,8}",
        ) {
            let (mut world, picker) = world(requests.len(), FAIRNESS);
            load(&mut world, &requests);
            let chosen = requests[pick_for(&world, &picker, &key) as usize];
            let total: u32 = requests.iter().sum();
            let mean = f64::from(total + 1) / requests.len() as f64;
            prop_assert!(f64::from(chosen + 1) <= (1.25 * mean).ceil());
        }
    }
}
