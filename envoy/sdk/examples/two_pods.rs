//! A module in one file: an HTTP filter that ranks pods, and a cluster whose `choose_host` follows the ranking.
//!
//! The filter reads the ranking from the request header `x-rank` ("ip:port, ip:port, …"), stores it, and passes on a token
//! that names the stored record: in the filter state where the balancer can read that (1.39 and newer), else in a private
//! header. Each attempt of the request takes the next pod of the ranking that the cluster has. A pod is added or removed
//! by a request with the header `x-add` or `x-remove`, whose work is done on the main thread.
//!
//! The header `x-first` names a pod that is called before the request goes on, in one piece or (`x-streamed`) as a stream; a
//! callout has no filter state, so its token is always a header.
//!
//! The header `x-panic` names a hook that is to panic: what Envoy does then is part of what the integration test looks at.

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use envoy_proxy_dynamic_modules_rust_sdk::abi::*;
use envoy_proxy_dynamic_modules_rust_sdk::*;

declare_all_init_functions!(init, http: new_filter_config, http_per_route: new_route_config, cluster: new_cluster_config);

/// Where the token travels.
const TOKEN_STATE: &[u8] = b"example.token";
const TOKEN_HEADER: &str = "x-example-token";

type HeadersStatus = envoy_dynamic_module_type_on_http_filter_request_headers_status;
type ResponseStatus = envoy_dynamic_module_type_on_http_filter_response_headers_status;

fn init() -> bool {
    envoy_log_info!("two_pods loaded into Envoy {:?}", envoy_version());
    true
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request's ranking and how far its attempts have come.
struct Record {
    ranking: Vec<String>,
    attempts: usize,
}

/// What the filter and the cluster share: the records, the pods, and the way to the main thread.
#[derive(Default)]
struct Shared {
    records: Mutex<(u64, HashMap<u64, Record>)>,
    pods: Mutex<HashMap<String, AtomicPtr<std::ffi::c_void>>>,
    /// Changes that wait for the main thread: an address, and whether it comes or goes.
    changes: Mutex<Vec<(String, bool)>>,
    scheduler: OnceLock<Box<dyn EnvoyClusterScheduler>>,
}

fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(Shared::default)
}

// --- The HTTP filter ---

struct FilterConfig {
    picks: EnvoyCounterVecId,
}

fn new_filter_config<EC: EnvoyHttpFilterConfig, EHF: EnvoyHttpFilter>(
    envoy: &mut EC,
    name: &str,
    config: &[u8],
) -> Option<Box<dyn HttpFilterConfig<EHF>>> {
    if config == b"reject" {
        envoy_log_error!("filter {name}: asked to reject its configuration");
        return None;
    }
    Some(Box::new(FilterConfig { picks: envoy.define_counter_vec("picks", &["first"]).ok()? }))
}

fn new_route_config(_name: &str, config: &[u8]) -> Option<Box<dyn Any>> {
    Some(Box::new(String::from_utf8(config.to_vec()).ok()?))
}

impl<EHF: EnvoyHttpFilter> HttpFilterConfig<EHF> for FilterConfig {
    fn new_http_filter(&self, _envoy: &mut EHF) -> Box<dyn HttpFilter<EHF>> {
        Box::new(Filter {
            picks: self.picks,
            tokens: Vec::new(),
            panic: String::new(),
            held: false,
            first: Vec::new(),
        })
    }
}

struct Filter {
    picks: EnvoyCounterVecId,
    tokens: Vec<u64>,
    panic: String,
    /// The request waits for a callout or another thread.
    held: bool,
    /// What the first pod has answered so far.
    first: Vec<u8>,
}

fn header<EHF: EnvoyHttpFilter>(envoy: &EHF, key: &str) -> Option<String> {
    let value = envoy.get_request_header_value(key)?;
    Some(String::from_utf8_lossy(value.as_slice()).into_owned())
}

impl Filter {
    fn panic_in(&self, hook: &str) {
        assert!(self.panic != hook, "{hook} was asked to panic");
    }

    /// Stores a ranking until the stream ends.
    fn remember(&mut self, ranking: Vec<String>) -> u64 {
        let mut records = lock(&shared().records);
        records.0 += 1;
        let token = records.0;
        records.1.insert(token, Record { ranking, attempts: 0 });
        self.tokens.push(token);
        token
    }

    /// Calls a pod through the module's own cluster and holds the request meanwhile.
    fn call_first<EHF: EnvoyHttpFilter>(&mut self, envoy: &mut EHF, pod: String) -> HeadersStatus {
        let token = self.remember(vec![pod]).to_string();
        let headers: [(&str, &[u8]); 4] = [
            (":method", b"POST"),
            (":path", b"/first"),
            ("host", b"example"),
            (TOKEN_HEADER, token.as_bytes()),
        ];
        let (result, _) = if header(envoy, "x-streamed").is_some() {
            envoy.start_http_stream("pods", &headers, Some(b"first"), true, 5_000)
        } else {
            envoy.send_http_callout("pods", &headers, Some(b"first"), 5_000)
        };
        if result == envoy_dynamic_module_type_http_callout_init_result::Success {
            self.held = true;
            HeadersStatus::StopIteration
        } else {
            envoy.set_request_header("x-first-answer", format!("{result:?}").as_bytes());
            HeadersStatus::Continue
        }
    }

    /// Lets the held request go on, with what the first pod has answered.
    fn after_first<EHF: EnvoyHttpFilter>(&mut self, envoy: &mut EHF, how: &str) {
        let name = self.first.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let answer = format!("{how} {}", String::from_utf8_lossy(name));
        envoy.set_request_header("x-first-answer", answer.as_bytes());
        self.held = false;
        envoy.continue_decoding();
    }

    fn change<EHF: EnvoyHttpFilter>(envoy: &mut EHF, address: String, add: bool) -> HeadersStatus {
        lock(&shared().changes).push((address, add));
        if let Some(scheduler) = shared().scheduler.get() {
            scheduler.commit(0);
        }
        envoy.send_response(202, &[], None, Some("changed"));
        HeadersStatus::StopIteration
    }
}

impl<EHF: EnvoyHttpFilter> HttpFilter<EHF> for Filter {
    fn on_request_headers(&mut self, envoy: &mut EHF, _end_of_stream: bool) -> HeadersStatus {
        self.panic = header(envoy, "x-panic").unwrap_or_default();
        self.panic_in("request_headers");
        if let Some(address) = header(envoy, "x-add") {
            return Self::change(envoy, address, true);
        }
        if let Some(address) = header(envoy, "x-remove") {
            return Self::change(envoy, address, false);
        }

        let ranking: Vec<String> = header(envoy, "x-rank")
            .unwrap_or_default()
            .split(',')
            .map(|pod| pod.trim().to_owned())
            .collect();
        if envoy.increment_counter_vec(self.picks, &[&ranking[0]], 1).is_err() {
            envoy_log_warn!("a pick was not counted");
        }
        let token = self.remember(ranking);
        // What the client may have sent under this name is gone in either case.
        envoy.remove_request_header(TOKEN_HEADER);
        if envoy_version() >= Some(EnvoyVersion::V1_39) {
            envoy.set_filter_state_bytes(TOKEN_STATE, token.to_string().as_bytes());
        } else {
            envoy.set_request_header(TOKEN_HEADER, token.to_string().as_bytes());
        }

        if let Some(first) = header(envoy, "x-first") {
            return self.call_first(envoy, first);
        }
        if self.panic == "scheduled" {
            let scheduler = envoy.new_scheduler();
            std::thread::spawn(move || scheduler.commit(1));
            self.held = true;
            return HeadersStatus::StopIteration;
        }
        HeadersStatus::Continue
    }

    fn on_request_body(
        &mut self,
        _envoy: &mut EHF,
        _end_of_stream: bool,
    ) -> envoy_dynamic_module_type_on_http_filter_request_body_status {
        self.panic_in("request_body");
        if self.held {
            return envoy_dynamic_module_type_on_http_filter_request_body_status::StopIterationAndBuffer;
        }
        envoy_dynamic_module_type_on_http_filter_request_body_status::Continue
    }

    fn on_response_headers(&mut self, envoy: &mut EHF, _end_of_stream: bool) -> ResponseStatus {
        self.panic_in("response_headers");
        if let Some(route) = envoy.get_most_specific_route_config()
            && let Some(route) = route.downcast_ref::<String>()
        {
            envoy.set_response_header("x-route", route.as_bytes());
        }
        ResponseStatus::Continue
    }

    fn on_http_callout_done(
        &mut self,
        envoy: &mut EHF,
        _callout_id: u64,
        result: envoy_dynamic_module_type_http_callout_result,
        _response_headers: Option<&[(EnvoyBuffer<'_>, EnvoyBuffer<'_>)]>,
        response_body: Option<&[EnvoyBuffer<'_>]>,
    ) {
        for chunk in response_body.unwrap_or_default() {
            self.first.extend_from_slice(chunk.as_slice());
        }
        self.after_first(envoy, &format!("callout {result:?}"));
    }

    fn on_http_stream_data(
        &mut self,
        _envoy: &mut EHF,
        _stream_handle: u64,
        response_data: &[EnvoyBuffer<'_>],
        _end_stream: bool,
    ) {
        for chunk in response_data {
            self.first.extend_from_slice(chunk.as_slice());
        }
    }

    fn on_http_stream_complete(&mut self, envoy: &mut EHF, _stream_handle: u64) {
        self.after_first(envoy, "stream complete");
    }

    fn on_http_stream_reset(
        &mut self,
        envoy: &mut EHF,
        _stream_handle: u64,
        reset_reason: envoy_dynamic_module_type_http_stream_reset_reason,
    ) {
        self.after_first(envoy, &format!("stream reset {reset_reason:?}"));
    }

    fn on_scheduled(&mut self, envoy: &mut EHF, _event_id: u64) {
        self.panic_in("scheduled");
        self.held = false;
        envoy.continue_decoding();
    }

    fn on_stream_complete(&mut self, envoy: &mut EHF) {
        self.panic_in("stream_complete");
        let code = envoy.get_attribute_int(envoy_dynamic_module_type_attribute_id::ResponseCode);
        envoy_log_debug!("stream complete: {code:?}");
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        let mut records = lock(&shared().records);
        for token in &self.tokens {
            records.1.remove(token);
        }
        drop(records);
        self.panic_in("destroy");
    }
}

// --- The cluster ---

struct PodsConfig {
    addresses: Vec<String>,
}

fn new_cluster_config(
    _name: &str,
    config: &[u8],
    _metrics: Arc<dyn EnvoyClusterMetrics>,
) -> Option<Box<dyn ClusterConfig>> {
    let config = std::str::from_utf8(config).ok()?;
    let addresses = config.split(',').map(|pod| pod.trim().to_owned()).collect();
    Some(Box::new(PodsConfig { addresses }))
}

impl ClusterConfig for PodsConfig {
    fn new_cluster(&self, _envoy: &dyn EnvoyCluster) -> Box<dyn Cluster> {
        Box::new(Pods { addresses: self.addresses.clone() })
    }
}

struct Pods {
    addresses: Vec<String>,
}

impl Pods {
    fn add(envoy: &dyn EnvoyCluster, addresses: &[String]) {
        if envoy.add_hosts(addresses, &vec![1; addresses.len()]).is_none() {
            envoy_log_error!("pods were not added: {addresses:?}");
        }
        for address in addresses {
            if let Some(host) = envoy.find_host_by_address(address) {
                lock(&shared().pods).insert(address.clone(), AtomicPtr::new(host));
            }
        }
    }
}

impl Cluster for Pods {
    fn on_init(&mut self, envoy: &dyn EnvoyCluster) {
        // A second cluster of the same module would share the first one's way to the main thread.
        let _ = shared().scheduler.set(envoy.new_scheduler());
        Self::add(envoy, &self.addresses);
        envoy.pre_init_complete();
    }

    fn new_load_balancer(
        &self,
        _envoy: &dyn EnvoyClusterLoadBalancer,
    ) -> Option<Box<dyn ClusterLb>> {
        Some(Box::new(Balancer))
    }

    fn on_scheduled(&self, envoy: &dyn EnvoyCluster, _event_id: u64) {
        for (address, add) in std::mem::take(&mut *lock(&shared().changes)) {
            if add {
                Self::add(envoy, &[address]);
            } else if let Some(host) = lock(&shared().pods).remove(&address) {
                envoy.remove_hosts(&[host.into_inner()]);
            }
        }
    }
}

struct Balancer;

impl Balancer {
    /// The record's number, from where the filter has put it.
    fn token(context: &dyn ClusterLbContext) -> Option<u64> {
        let token = context
            .get_filter_state_bytes(TOKEN_STATE)
            .or_else(|| Some(context.get_downstream_header(TOKEN_HEADER, 0)?.0))?;
        std::str::from_utf8(token.as_slice()).ok()?.parse().ok()
    }

    fn choose(context: &dyn ClusterLbContext) -> Option<HostSelectionResult> {
        let mut records = lock(&shared().records);
        let record = records.1.get_mut(&Self::token(context)?)?;
        let pods = lock(&shared().pods);
        while let Some(address) = record.ranking.get(record.attempts) {
            record.attempts += 1;
            if let Some(host) = pods.get(address) {
                return Some(HostSelectionResult::Selected(host.load(Ordering::Relaxed)));
            }
        }
        None
    }
}

impl ClusterLb for Balancer {
    fn choose_host(
        &mut self,
        _context: Option<&dyn ClusterLbContext>,
        _completion: Box<dyn EnvoyAsyncHostSelectionComplete>,
    ) -> HostSelectionResult {
        HostSelectionResult::NoHost
    }

    fn choose_host_now(
        &mut self,
        context: Option<&dyn ClusterLbContext>,
    ) -> Option<HostSelectionResult> {
        Some(context.and_then(Self::choose).unwrap_or(HostSelectionResult::NoHost))
    }
}
