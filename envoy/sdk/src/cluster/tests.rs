//! The exported hooks of a cluster, called as Envoy would, over a table of fake functions.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::ptr;
use std::rc::Rc;

use crate::abi::envoy_dynamic_module_type_module_buffer as ModuleBuffer;
use crate::cluster::envoy_cluster::EnvoyClusterImpl;
use crate::cluster::hooks::*;
use crate::cluster::lb::EnvoyClusterLoadBalancerImpl;
use crate::cluster::*;
use crate::completion::CompletionCallback;
use crate::host::{Callbacks, fake};

const CLUSTER: *mut c_void = ptr::dangling_mut();

thread_local! {
    /// What Envoy was asked to do, in order.
    static CALLS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// What `choose_host` does.
    static CHOICE: Cell<Choice> = const { Cell::new(Choice::Nothing) };
}

#[derive(Clone, Copy)]
enum Choice {
    Nothing,
    Host(usize),
    Panic,
    Later,
}

fn called(what: impl Into<String>) {
    CALLS.with_borrow_mut(|calls| calls.push(what.into()));
}

fn text(buffer: ModuleBuffer) -> String {
    // SAFETY: a buffer lent by the call under test.
    let bytes = unsafe { std::slice::from_raw_parts(buffer.ptr.cast(), buffer.length) };
    String::from_utf8_lossy(bytes).into_owned()
}

/// A host's pointer, never followed.
fn host(number: usize) -> ClusterHost {
    ptr::without_provenance_mut(number)
}

/// Knows one host.
unsafe extern "C" fn find(_: *mut c_void, address: ModuleBuffer) -> ClusterHost {
    if text(address) == "known:1" { host(1) } else { ptr::null_mut() }
}

unsafe extern "C" fn add(
    _: *mut c_void,
    priority: u32,
    addresses: *const ModuleBuffer,
    weights: *const u32,
    regions: *const ModuleBuffer,
    _: *const ModuleBuffer,
    _: *const ModuleBuffer,
    metadata: *const ModuleBuffer,
    triples: usize,
    count: usize,
    hosts: *mut ClusterHost,
) -> bool {
    for index in 0..count {
        // SAFETY: lists of `count` elements, lent by the call under test.
        let (address, weight, region) = unsafe {
            *hosts.add(index) = host(100 + index);
            (*addresses.add(index), *weights.add(index), *regions.add(index))
        };
        called(format!("add {} x{weight} in '{}' at {priority}", text(address), text(region)));
    }
    // SAFETY: three buffers per triple and host, if there are any.
    let values: Vec<_> =
        (0..count * triples * 3).map(|i| text(unsafe { *metadata.add(i) })).collect();
    if !values.is_empty() {
        called(values.join("/"));
    }
    true
}

unsafe extern "C" fn pre_init_complete(_: *mut c_void) {
    called("initialised");
}

unsafe extern "C" fn count(_: *mut c_void, _: u32) -> usize {
    called("count");
    3
}

unsafe extern "C" fn level() -> u32 {
    0
}

unsafe extern "C" fn complete(
    _: *mut c_void,
    _: *mut c_void,
    chosen: ClusterHost,
    details: ModuleBuffer,
) {
    called(format!("complete {} {}", chosen.addr(), text(details)));
}

unsafe extern "C" fn shut_down(_: *mut c_void) {
    called("shutdown done");
}

fn table() -> Callbacks {
    Callbacks {
        cluster_find_host_by_address: Some(find),
        cluster_add_hosts: Some(add),
        cluster_pre_init_complete: Some(pre_init_complete),
        cluster_lb_get_hosts_count: Some(count),
        cluster_lb_async_host_selection_complete: Some(complete),
        ..Callbacks::default()
    }
}

struct Own;

impl ClusterConfig for Own {
    fn new_cluster(&self, _: &dyn EnvoyCluster) -> Box<dyn Cluster> {
        Box::new(Own)
    }
}

impl Cluster for Own {
    fn on_init(&mut self, envoy: &dyn EnvoyCluster) {
        envoy.pre_init_complete();
        called("init returns");
    }

    fn new_load_balancer(&self, _: &dyn EnvoyClusterLoadBalancer) -> Option<Box<dyn ClusterLb>> {
        Some(Box::new(Balancer { pending: Rc::default() }))
    }

    fn on_shutdown(&self, _: &dyn EnvoyCluster, _completion: CompletionCallback) {
        panic!("told to");
    }
}

type Pending = Rc<RefCell<Option<Box<dyn EnvoyAsyncHostSelectionComplete>>>>;

struct Balancer {
    pending: Pending,
}

// SAFETY: used on the test's one thread.
unsafe impl Send for Balancer {}

struct Handle(Pending);

impl AsyncHostSelectionHandle for Handle {
    fn cancel(&mut self) {
        called("cancelled");
        if let Some(completion) = self.0.take() {
            completion.async_host_selection_complete(Some(host(9)), "too-late");
        }
    }
}

impl ClusterLb for Balancer {
    fn choose_host(
        &mut self,
        context: Option<&dyn ClusterLbContext>,
        completion: Box<dyn EnvoyAsyncHostSelectionComplete>,
    ) -> HostSelectionResult {
        assert!(context.is_none());
        match CHOICE.get() {
            Choice::Nothing => HostSelectionResult::NoHost,
            Choice::Host(number) => HostSelectionResult::Selected(host(number)),
            Choice::Panic => panic!("told to"),
            Choice::Later => {
                self.pending.replace(Some(completion));
                HostSelectionResult::AsyncPending(Box::new(Handle(Rc::clone(&self.pending))))
            }
        }
    }
}

/// Runs `body` with a balancer, and ends it as Envoy does.
fn with_balancer(body: impl FnOnce(*const c_void)) {
    fake::install(table());
    CALLS.take();
    let cluster = Box::into_raw(Box::new(Box::new(Own) as Box<dyn Cluster>)).cast_const().cast();
    // SAFETY: the cluster and its balancer are made and destroyed once, as Envoy does.
    unsafe {
        let lb = envoy_dynamic_module_on_cluster_lb_new(cluster, CLUSTER);
        body(lb);
        envoy_dynamic_module_on_cluster_lb_destroy(lb);
        envoy_dynamic_module_on_cluster_destroy(cluster);
    }
}

fn choose(lb: *const c_void) -> (usize, *mut c_void) {
    let (mut chosen, mut handle) = (host(5), host(5));
    // SAFETY: the balancer under test and two outputs.
    unsafe {
        envoy_dynamic_module_on_cluster_lb_choose_host(
            lb,
            ptr::null_mut(),
            &raw mut chosen,
            &raw mut handle,
        );
    }
    (chosen.addr(), handle)
}

#[test]
fn a_choice_writes_both_outputs_whatever_happens() {
    with_balancer(|lb| {
        CHOICE.set(Choice::Host(7));
        assert_eq!(choose(lb), (7, ptr::null_mut()));
        CHOICE.set(Choice::Nothing);
        assert_eq!(choose(lb), (0, ptr::null_mut()));
        CHOICE.set(Choice::Panic);
        assert_eq!(choose(lb), (0, ptr::null_mut()));
        // A panic costs one choice.
        CHOICE.set(Choice::Host(7));
        assert_eq!(choose(lb), (7, ptr::null_mut()));
    });
    assert_eq!(choose(ptr::null()), (0, ptr::null_mut()));
}

#[test]
fn a_pending_choice_is_not_answered_after_its_cancellation() {
    with_balancer(|lb| {
        CHOICE.set(Choice::Later);
        let (chosen, handle) = choose(lb);
        assert!(chosen == 0 && !handle.is_null());
        // SAFETY: the handle of this choice, once.
        unsafe { envoy_dynamic_module_on_cluster_lb_cancel_host_selection(lb, handle) };
        assert_eq!(CALLS.take(), ["cancelled"]);
    });
}

#[test]
fn initialisation_is_told_when_the_cluster_is_free_again() {
    fake::install(table());
    CALLS.take();
    let cluster = Box::into_raw(Box::new(Box::new(Own) as Box<dyn Cluster>)).cast_const().cast();
    // SAFETY: a cluster as `cluster_new` makes it, destroyed once.
    unsafe {
        envoy_dynamic_module_on_cluster_init(CLUSTER, cluster);
        assert_eq!(CALLS.take(), ["init returns", "initialised"]);
        // A shutdown is completed even by a hook that panics.
        envoy_dynamic_module_on_cluster_shutdown(
            CLUSTER,
            cluster,
            Some(shut_down),
            ptr::null_mut(),
        );
        assert_eq!(CALLS.take(), ["shutdown done"]);
        envoy_dynamic_module_on_cluster_destroy(cluster);
    }
}

#[test]
fn only_new_hosts_are_added() {
    fake::install(table());
    CALLS.take();
    // SAFETY: the fakes do not look at the cluster.
    let cluster = unsafe { EnvoyClusterImpl::new(CLUSTER) };
    let addresses = ["new:1", "known:1", "new:2", "new:1"].map(str::to_owned);
    let added = cluster.add_hosts_to_priority(1, &addresses, &[1, 2, 3, 4]).expect("added");
    assert_eq!(added, [host(100), host(101)]);
    assert_eq!(CALLS.take(), ["add new:1 x1 in '' at 1", "add new:2 x3 in '' at 1"]);

    assert_eq!(cluster.add_hosts(&addresses[1..2], &[1]), Some(Vec::new()));
    assert_eq!(CALLS.take(), [""; 0]);
}

#[test]
fn lists_that_do_not_fit_are_refused() {
    fake::install(table());
    CALLS.take();
    // SAFETY: the fakes do not look at the cluster.
    let cluster = unsafe { EnvoyClusterImpl::new(CLUSTER) };
    let addresses = ["new:1", "new:2"].map(str::to_owned);
    for weights in [&[1][..], &[1, 0], &[1, 129], &[1, 1, 1]] {
        assert_eq!(cluster.add_hosts(&addresses, weights), None, "{weights:?}");
    }
    let place = |region: &str| (region.to_owned(), String::new(), String::new());
    let data = || ("f".to_owned(), "k".to_owned(), "v".to_owned());
    assert_eq!(cluster.add_hosts_with_locality(&addresses, &[1, 1], &[place("r")], &[]), None);
    let uneven = [vec![data()], vec![]];
    assert_eq!(cluster.add_hosts_with_locality(&addresses, &[1, 1], &[], &uneven), None);
    // Host names need 1.40.
    assert_eq!(cluster.add_hosts_with_hostnames(&addresses, &addresses, &[1, 1]), None);
    assert_eq!(CALLS.take(), [""; 0]);

    let even = [vec![data()], vec![data()]];
    let places = [place("r1"), place("r2")];
    assert!(cluster.add_hosts_with_locality(&addresses, &[1, 1], &places, &even).is_some());
    assert_eq!(
        CALLS.take(),
        ["add new:1 x1 in 'r1' at 0", "add new:2 x1 in 'r2' at 0", "f/k/v/f/k/v"]
    );
}

#[test]
fn hosts_are_not_read_on_1_38() {
    // SAFETY: the fakes do not look at the balancer.
    let lb = unsafe { EnvoyClusterLoadBalancerImpl::new(CLUSTER) };
    fake::install(table());
    CALLS.take();
    assert_eq!(lb.get_hosts_count(0), 0);
    assert_eq!(lb.get_host_health(0, 0), None);
    assert_eq!(CALLS.take(), [""; 0]);
    fake::install(Callbacks { get_log_level: Some(level), ..table() });
    assert_eq!(lb.get_hosts_count(0), 3);
    assert_eq!(CALLS.take(), ["count"]);
}

#[test]
fn a_mock_stands_in_for_envoy() {
    let mut cluster = MockEnvoyCluster::new();
    cluster.expect_pre_init_complete().once().return_const(());
    Own.on_init(&cluster);
    let mut context = MockClusterLbContext::new();
    context.expect_get_filter_state_bytes().returning(|_| None);
    assert!(context.get_filter_state_bytes(b"token").is_none());
}
