//! The exported hooks of a cluster.
//!
//! A panic costs what the hook was for: that selection has no host, that event is lost, that configuration is rejected.

use std::cell::{Cell, UnsafeCell};
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::abi::*;
use crate::buffer::EnvoyBuffer;
use crate::cluster::context::ClusterLbContextImpl;
use crate::cluster::envoy_cluster::EnvoyClusterImpl;
use crate::cluster::lb::EnvoyClusterLoadBalancerImpl;
use crate::cluster::metrics::ClusterMetrics;
use crate::cluster::scheduler::WorkerTimer;
use crate::cluster::selection::{Completion, HostSelectionResult, Pending};
use crate::cluster::{Cluster, ClusterConfig, ClusterHost, ClusterLb, ClusterLbContext};
use crate::completion::CompletionCallback;
use crate::guard::guard;
use crate::http::{callout_result, response};
use crate::init::{NEW_CLUSTER_CONFIG_FUNCTION, name_of};

type Config = Box<dyn ClusterConfig>;
type OwnCluster = Box<dyn Cluster>;

/// What stands behind a balancer's pointer. On one thread only.
struct LbSlot {
    envoy: *mut c_void,
    /// `None` when the module made none: there is no host then.
    lb: UnsafeCell<Option<Box<dyn ClusterLb>>>,
    borrowed: Cell<bool>,
}

impl LbSlot {
    /// Runs one method of the balancer; `None` when there is none, it panicked, or it is busy.
    fn ask<T>(
        &self,
        name: &'static str,
        method: impl FnOnce(&mut dyn ClusterLb) -> T,
    ) -> Option<T> {
        if self.borrowed.replace(true) {
            return None;
        }
        // SAFETY: `borrowed` was false, so nobody else has the balancer.
        let lb = unsafe { &mut *self.lb.get() };
        let value = lb.as_mut().and_then(|lb| guard(name, || method(lb.as_mut())));
        self.borrowed.set(false);
        value
    }
}

fn lb_slot<'a>(lb: envoy_dynamic_module_type_cluster_lb_module_ptr) -> Option<&'a LbSlot> {
    // SAFETY: `lb` is what `cluster_lb_new` returned and has not been destroyed; the reference is used within the export.
    unsafe { lb.cast::<LbSlot>().as_ref() }
}

/// Runs one method of a cluster.
fn ask<T>(
    name: &'static str,
    cluster_envoy: envoy_dynamic_module_type_cluster_envoy_ptr,
    cluster: envoy_dynamic_module_type_cluster_module_ptr,
    method: impl FnOnce(&dyn Cluster, &EnvoyClusterImpl) -> T,
) -> Option<T> {
    // SAFETY: `cluster` is what `cluster_new` returned, and Envoy calls no hook after destroying it.
    let cluster = unsafe { cluster.cast::<OwnCluster>().as_ref()? };
    // SAFETY: the value stays on this stack.
    let envoy = unsafe { EnvoyClusterImpl::new(cluster_envoy) };
    guard(name, || method(cluster.as_ref(), &envoy))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_cluster_config_new(
    config_envoy: envoy_dynamic_module_type_cluster_config_envoy_ptr,
    name: envoy_dynamic_module_type_envoy_buffer,
    config: envoy_dynamic_module_type_envoy_buffer,
) -> envoy_dynamic_module_type_cluster_config_module_ptr {
    guard("cluster_config_new", || {
        let new = NEW_CLUSTER_CONFIG_FUNCTION.get()?;
        // SAFETY: Envoy's buffers live until the hook returns; the configuration outlives what the module makes for it.
        let (name, config, metrics) = unsafe {
            (
                name_of(name, "a cluster")?,
                EnvoyBuffer::from_raw(config),
                ClusterMetrics::new(config_envoy),
            )
        };
        let made: Config = new(name, config.as_slice(), Arc::new(metrics))?;
        Some(Box::into_raw(Box::new(made)).cast_const().cast())
    })
    .flatten()
    .unwrap_or(ptr::null())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_cluster_config_destroy(
    config: envoy_dynamic_module_type_cluster_config_module_ptr,
) {
    if !config.is_null() {
        // SAFETY: `config` came from `cluster_config_new`, and this is its last hook.
        let config = unsafe { Box::from_raw(config.cast_mut().cast::<Config>()) };
        guard("cluster_config_destroy", move || drop(config));
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_cluster_new(
    config: envoy_dynamic_module_type_cluster_config_module_ptr,
    cluster_envoy: envoy_dynamic_module_type_cluster_envoy_ptr,
) -> envoy_dynamic_module_type_cluster_module_ptr {
    guard("cluster_new", || {
        // SAFETY: `config` is what `cluster_config_new` returned; the cluster stays on this stack.
        let (config, envoy) =
            unsafe { (config.cast::<Config>().as_ref()?, EnvoyClusterImpl::new(cluster_envoy)) };
        let made: OwnCluster = config.new_cluster(&envoy);
        Some(Box::into_raw(Box::new(made)).cast_const().cast())
    })
    .flatten()
    .unwrap_or(ptr::null())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_cluster_init(
    cluster_envoy: envoy_dynamic_module_type_cluster_envoy_ptr,
    cluster: envoy_dynamic_module_type_cluster_module_ptr,
) {
    // SAFETY: the value stays on this stack.
    let envoy = unsafe { EnvoyClusterImpl::held(cluster_envoy) };
    guard("cluster_init", || {
        // SAFETY: `cluster` is what `cluster_new` returned. Nothing else has it yet: balancers are made after
        // `pre_init_complete`, which is held back until this borrow has ended.
        if let Some(cluster) = unsafe { cluster.cast_mut().cast::<OwnCluster>().as_mut() } {
            cluster.on_init(&envoy);
        }
    });
    envoy.release();
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_cluster_destroy(
    cluster: envoy_dynamic_module_type_cluster_module_ptr,
) {
    if !cluster.is_null() {
        // SAFETY: `cluster` came from `cluster_new`, and this is its last hook; the balancers are gone.
        let cluster = unsafe { Box::from_raw(cluster.cast_mut().cast::<OwnCluster>()) };
        guard("cluster_destroy", move || drop(cluster));
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_cluster_lb_new(
    cluster: envoy_dynamic_module_type_cluster_module_ptr,
    lb_envoy: envoy_dynamic_module_type_cluster_lb_envoy_ptr,
) -> envoy_dynamic_module_type_cluster_lb_module_ptr {
    let lb = guard("cluster_lb_new", || {
        // SAFETY: `cluster` outlives its balancers; the balancer of Envoy stays on this stack.
        let (cluster, envoy) = unsafe {
            (cluster.cast::<OwnCluster>().as_ref()?, EnvoyClusterLoadBalancerImpl::new(lb_envoy))
        };
        cluster.new_load_balancer(&envoy)
    })
    .flatten();
    let slot = LbSlot { envoy: lb_envoy, lb: UnsafeCell::new(lb), borrowed: Cell::new(false) };
    Box::into_raw(Box::new(slot)).cast_const().cast()
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_cluster_lb_destroy(
    lb: envoy_dynamic_module_type_cluster_lb_module_ptr,
) {
    if !lb.is_null() {
        // SAFETY: `lb` came from `cluster_lb_new`, and this is its last hook.
        let lb = unsafe { Box::from_raw(lb.cast_mut().cast::<LbSlot>()) };
        guard("cluster_lb_destroy", move || drop(lb));
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_cluster_lb_choose_host(
    lb: envoy_dynamic_module_type_cluster_lb_module_ptr,
    context: envoy_dynamic_module_type_cluster_lb_context_envoy_ptr,
    host_out: *mut envoy_dynamic_module_type_cluster_host_envoy_ptr,
    async_handle_out: *mut envoy_dynamic_module_type_cluster_lb_async_handle_module_ptr,
) {
    let (host, handle) = choose(lb, context);
    // SAFETY: Envoy wants both outputs written.
    unsafe {
        *host_out = host;
        *async_handle_out = handle;
    }
}

/// A host, or the handle of a pending selection, or neither.
fn choose(
    lb: envoy_dynamic_module_type_cluster_lb_module_ptr,
    context: *mut c_void,
) -> (ClusterHost, *mut c_void) {
    const NONE: (ClusterHost, *mut c_void) = (ptr::null_mut(), ptr::null_mut());
    let Some(slot) = lb_slot(lb) else { return NONE };
    // SAFETY: the value stays on this stack.
    let envoy = unsafe { ClusterLbContextImpl::new(slot.envoy, context) };
    let envoy = (!context.is_null()).then_some(&envoy as &dyn ClusterLbContext);
    let mut over = None;
    let result = slot.ask("cluster_lb_choose_host", |lb| {
        lb.choose_host_now(envoy).unwrap_or_else(|| {
            let flag: &Arc<AtomicBool> = over.get_or_insert_default();
            lb.choose_host(envoy, Box::new(Completion::new(slot.envoy, context, Arc::clone(flag))))
        })
    });
    match result {
        Some(HostSelectionResult::Selected(host)) => (host, ptr::null_mut()),
        Some(HostSelectionResult::AsyncPending(handle)) => {
            let pending = Pending { handle, over: over.unwrap_or_default() };
            (ptr::null_mut(), Box::into_raw(Box::new(pending)).cast())
        }
        Some(HostSelectionResult::NoHost) | None => NONE,
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_cluster_lb_cancel_host_selection(
    _lb: envoy_dynamic_module_type_cluster_lb_module_ptr,
    async_handle: envoy_dynamic_module_type_cluster_lb_async_handle_module_ptr,
) {
    if !async_handle.is_null() {
        // SAFETY: the handle came from `choose_host`, and this is its only cancellation.
        let pending = unsafe { Box::from_raw(async_handle.cast::<Pending>()) };
        guard("cluster_lb_cancel_host_selection", move || pending.cancel());
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_cluster_lb_on_host_membership_update(
    lb_envoy: envoy_dynamic_module_type_cluster_lb_envoy_ptr,
    lb: envoy_dynamic_module_type_cluster_lb_module_ptr,
    hosts_added: usize,
    hosts_removed: usize,
) {
    if let Some(slot) = lb_slot(lb) {
        // SAFETY: the value stays on this stack.
        let envoy = unsafe { EnvoyClusterLoadBalancerImpl::new(lb_envoy) };
        slot.ask("cluster_lb_on_host_membership_update", |lb| {
            lb.on_host_membership_update(&envoy, hosts_added, hosts_removed);
        });
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_cluster_worker_timer_fired(
    lb_envoy: envoy_dynamic_module_type_cluster_lb_envoy_ptr,
    lb: envoy_dynamic_module_type_cluster_lb_module_ptr,
    timer: envoy_dynamic_module_type_cluster_worker_timer_module_ptr,
) {
    if let Some(slot) = lb_slot(lb) {
        // SAFETY: the value stays on this stack.
        let envoy = unsafe { EnvoyClusterLoadBalancerImpl::new(lb_envoy) };
        slot.ask("cluster_worker_timer_fired", |lb| {
            lb.on_worker_timer_fired(&envoy, &WorkerTimer::lent(timer));
        });
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_cluster_scheduled(
    cluster_envoy: envoy_dynamic_module_type_cluster_envoy_ptr,
    cluster: envoy_dynamic_module_type_cluster_module_ptr,
    event_id: u64,
) {
    ask("cluster_scheduled", cluster_envoy, cluster, |cluster, envoy| {
        cluster.on_scheduled(envoy, event_id);
    });
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_cluster_worker_event(
    cluster_envoy: envoy_dynamic_module_type_cluster_envoy_ptr,
    cluster: envoy_dynamic_module_type_cluster_module_ptr,
    event_id: u64,
) {
    ask("cluster_worker_event", cluster_envoy, cluster, |cluster, envoy| {
        cluster.on_worker_event(envoy, event_id);
    });
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_cluster_server_initialized(
    cluster_envoy: envoy_dynamic_module_type_cluster_envoy_ptr,
    cluster: envoy_dynamic_module_type_cluster_module_ptr,
) {
    ask("cluster_server_initialized", cluster_envoy, cluster, |cluster, envoy| {
        cluster.on_server_initialized(envoy);
    });
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_cluster_drain_started(
    cluster_envoy: envoy_dynamic_module_type_cluster_envoy_ptr,
    cluster: envoy_dynamic_module_type_cluster_module_ptr,
) {
    ask("cluster_drain_started", cluster_envoy, cluster, |cluster, envoy| {
        cluster.on_drain_started(envoy);
    });
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_cluster_shutdown(
    cluster_envoy: envoy_dynamic_module_type_cluster_envoy_ptr,
    cluster: envoy_dynamic_module_type_cluster_module_ptr,
    completion: envoy_dynamic_module_type_event_cb,
    context: *mut c_void,
) {
    // SAFETY: the pair is Envoy's own; a panic drops the value, which completes the shutdown.
    let completion = unsafe { CompletionCallback::new(completion, context) };
    ask("cluster_shutdown", cluster_envoy, cluster, move |cluster, envoy| {
        cluster.on_shutdown(envoy, completion);
    });
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_cluster_http_callout_done(
    cluster_envoy: envoy_dynamic_module_type_cluster_envoy_ptr,
    cluster: envoy_dynamic_module_type_cluster_module_ptr,
    callout_id: u64,
    result: u32,
    headers: *mut envoy_dynamic_module_type_envoy_http_header,
    headers_size: usize,
    body_chunks: *mut envoy_dynamic_module_type_envoy_buffer,
    body_chunks_size: usize,
) {
    ask("cluster_http_callout_done", cluster_envoy, cluster, |cluster, envoy| {
        // SAFETY: Envoy's lists live until the hook returns.
        let (headers, body) =
            unsafe { response(headers, headers_size, body_chunks, body_chunks_size) };
        cluster.on_http_callout_done(envoy, callout_id, callout_result(result), headers, body);
    });
}

const _: () = {
    let _: hooks::cluster_config_new = envoy_dynamic_module_on_cluster_config_new;
    let _: hooks::cluster_config_destroy = envoy_dynamic_module_on_cluster_config_destroy;
    let _: hooks::cluster_new = envoy_dynamic_module_on_cluster_new;
    let _: hooks::cluster_init = envoy_dynamic_module_on_cluster_init;
    let _: hooks::cluster_destroy = envoy_dynamic_module_on_cluster_destroy;
    let _: hooks::cluster_lb_new = envoy_dynamic_module_on_cluster_lb_new;
    let _: hooks::cluster_lb_destroy = envoy_dynamic_module_on_cluster_lb_destroy;
    let _: hooks::cluster_lb_choose_host = envoy_dynamic_module_on_cluster_lb_choose_host;
    let _: hooks::cluster_lb_cancel_host_selection =
        envoy_dynamic_module_on_cluster_lb_cancel_host_selection;
    let _: hooks::cluster_lb_on_host_membership_update =
        envoy_dynamic_module_on_cluster_lb_on_host_membership_update;
    let _: hooks::cluster_worker_timer_fired = envoy_dynamic_module_on_cluster_worker_timer_fired;
    let _: hooks::cluster_scheduled = envoy_dynamic_module_on_cluster_scheduled;
    let _: hooks::cluster_worker_event = envoy_dynamic_module_on_cluster_worker_event;
    let _: hooks::cluster_server_initialized = envoy_dynamic_module_on_cluster_server_initialized;
    let _: hooks::cluster_drain_started = envoy_dynamic_module_on_cluster_drain_started;
    let _: hooks::cluster_shutdown = envoy_dynamic_module_on_cluster_shutdown;
    let _: hooks::cluster_http_callout_done = envoy_dynamic_module_on_cluster_http_callout_done;
};
