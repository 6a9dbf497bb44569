//! The hooks of a bootstrap extension. A module that declares one exports them under Envoy's names.
//!
//! A panic costs what the hook was for: that event is lost, that configuration is rejected, that page answers 500.

// The contract of each is Envoy's: pointers are those that it was given or gave, buffers live until the hook returns.
#![allow(clippy::missing_safety_doc, missing_docs)]

use std::ffi::c_void;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use crate::abi::*;
use crate::bootstrap::envoy_impl::{ConfigImpl, ExtensionImpl};
use crate::bootstrap::timer::BootstrapTimer;
use crate::bootstrap::{BootstrapExtension, BootstrapExtensionConfig};
use crate::buffer::EnvoyBuffer;
use crate::completion::CompletionCallback;
use crate::guard::guard;
use crate::http::{callout_result, response};
use crate::init::{NEW_BOOTSTRAP_EXTENSION_CONFIG_FUNCTION, name_of};

type ConfigEnvoy = envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr;
type ConfigModule = envoy_dynamic_module_type_bootstrap_extension_config_module_ptr;
type ExtensionEnvoy = envoy_dynamic_module_type_bootstrap_extension_envoy_ptr;
type ExtensionModule = envoy_dynamic_module_type_bootstrap_extension_module_ptr;
type Buffer = envoy_dynamic_module_type_envoy_buffer;
type Header = envoy_dynamic_module_type_envoy_http_header;

type Config = Box<dyn BootstrapExtensionConfig>;

/// The extension's hooks take it exclusively, and workers start at the same time: the lock makes one of it at a time.
type Extension = Mutex<Box<dyn BootstrapExtension>>;

fn ask_config<T>(
    name: &'static str,
    config_envoy: ConfigEnvoy,
    config: ConfigModule,
    method: impl FnOnce(&dyn BootstrapExtensionConfig, &mut ConfigImpl) -> T,
) -> Option<T> {
    // SAFETY: `config` is what `config_new` returned, and Envoy calls no hook after destroying it.
    let config = unsafe { config.cast::<Config>().as_ref()? };
    // SAFETY: the value stays on this stack.
    let mut envoy = unsafe { ConfigImpl::new(config_envoy) };
    guard(name, || method(config.as_ref(), &mut envoy))
}

fn ask_extension(
    name: &'static str,
    extension_envoy: ExtensionEnvoy,
    extension: ExtensionModule,
    method: impl FnOnce(&mut dyn BootstrapExtension, &mut ExtensionImpl),
) {
    // SAFETY: `extension` is what `new` returned, and Envoy calls no hook after destroying it.
    let Some(extension) = (unsafe { extension.cast::<Extension>().as_ref() }) else { return };
    // SAFETY: the value stays on this stack.
    let mut envoy = unsafe { ExtensionImpl::new(extension_envoy) };
    guard(name, || {
        let mut extension = extension.lock().unwrap_or_else(PoisonError::into_inner);
        method(extension.as_mut(), &mut envoy);
    });
}

/// # Safety
/// The buffer lives until the hook returns.
unsafe fn text(raw: Buffer) -> String {
    // SAFETY: as required of the caller.
    let buffer = unsafe { EnvoyBuffer::from_raw(raw) };
    String::from_utf8_lossy(buffer.as_slice()).into_owned()
}

pub unsafe extern "C" fn config_new(
    config_envoy: ConfigEnvoy,
    name: Buffer,
    config: Buffer,
) -> ConfigModule {
    guard("bootstrap_extension_config_new", || {
        let new = NEW_BOOTSTRAP_EXTENSION_CONFIG_FUNCTION.get()?;
        // SAFETY: Envoy's buffers and the configuration live until the hook returns.
        let (name, config, mut envoy) = unsafe {
            (
                name_of(name, "a bootstrap extension")?,
                EnvoyBuffer::from_raw(config),
                ConfigImpl::new(config_envoy),
            )
        };
        let made: Config = new(&mut envoy, name, config.as_slice())?;
        Some(Box::into_raw(Box::new(made)).cast_const().cast())
    })
    .flatten()
    .unwrap_or(ptr::null())
}

pub unsafe extern "C" fn config_destroy(config: ConfigModule) {
    if !config.is_null() {
        // SAFETY: `config` came from `config_new`, and this is its last hook.
        let config = unsafe { Box::from_raw(config.cast_mut().cast::<Config>()) };
        guard("bootstrap_extension_config_destroy", move || drop(config));
    }
}

pub unsafe extern "C" fn new(
    config: ConfigModule,
    extension_envoy: ExtensionEnvoy,
) -> ExtensionModule {
    guard("bootstrap_extension_new", || {
        // SAFETY: `config` is what `config_new` returned; the extension of Envoy stays on this stack.
        let (config, mut envoy) =
            unsafe { (config.cast::<Config>().as_ref()?, ExtensionImpl::new(extension_envoy)) };
        let made: Extension = Mutex::new(config.new_bootstrap_extension(&mut envoy));
        Some(Box::into_raw(Box::new(made)).cast_const().cast())
    })
    .flatten()
    .unwrap_or(ptr::null())
}

pub unsafe extern "C" fn destroy(extension: ExtensionModule) {
    if !extension.is_null() {
        // SAFETY: `extension` came from `new`, and this is its last hook.
        let extension = unsafe { Box::from_raw(extension.cast_mut().cast::<Extension>()) };
        guard("bootstrap_extension_destroy", move || drop(extension));
    }
}

pub unsafe extern "C" fn server_initialized(
    extension_envoy: ExtensionEnvoy,
    extension: ExtensionModule,
) {
    ask_extension(
        "bootstrap_extension_server_initialized",
        extension_envoy,
        extension,
        |extension, envoy| extension.on_server_initialized(envoy),
    );
}

pub unsafe extern "C" fn worker_thread_initialized(
    extension_envoy: ExtensionEnvoy,
    extension: ExtensionModule,
) {
    ask_extension(
        "bootstrap_extension_worker_thread_initialized",
        extension_envoy,
        extension,
        |extension, envoy| extension.on_worker_thread_initialized(envoy),
    );
}

pub unsafe extern "C" fn drain_started(
    extension_envoy: ExtensionEnvoy,
    extension: ExtensionModule,
) {
    ask_extension(
        "bootstrap_extension_drain_started",
        extension_envoy,
        extension,
        |extension, envoy| extension.on_drain_started(envoy),
    );
}

pub unsafe extern "C" fn shutdown(
    extension_envoy: ExtensionEnvoy,
    extension: ExtensionModule,
    completion: envoy_dynamic_module_type_event_cb,
    context: *mut c_void,
) {
    // SAFETY: the pair is Envoy's own; a panic drops the value, which completes the shutdown.
    let completion = unsafe { CompletionCallback::new(completion, context) };
    ask_extension(
        "bootstrap_extension_shutdown",
        extension_envoy,
        extension,
        move |extension, envoy| extension.on_shutdown(envoy, completion),
    );
}

pub unsafe extern "C" fn config_scheduled(
    config_envoy: ConfigEnvoy,
    config: ConfigModule,
    event_id: u64,
) {
    ask_config("bootstrap_extension_config_scheduled", config_envoy, config, |config, envoy| {
        config.on_scheduled(envoy, event_id);
    });
}

pub unsafe extern "C" fn timer_fired(
    config_envoy: ConfigEnvoy,
    config: ConfigModule,
    timer: envoy_dynamic_module_type_bootstrap_extension_timer_module_ptr,
) {
    ask_config("bootstrap_extension_timer_fired", config_envoy, config, |config, envoy| {
        config.on_timer_fired(envoy, &BootstrapTimer::lent(timer));
    });
}

pub unsafe extern "C" fn file_changed(
    config_envoy: ConfigEnvoy,
    config: ConfigModule,
    path: Buffer,
    events: u32,
) {
    ask_config("bootstrap_extension_file_changed", config_envoy, config, |config, envoy| {
        // SAFETY: Envoy's buffer lives until the hook returns.
        config.on_file_changed(envoy, &unsafe { text(path) }, events);
    });
}

pub unsafe extern "C" fn http_callout_done(
    config_envoy: ConfigEnvoy,
    config: ConfigModule,
    callout_id: u64,
    result: u32,
    headers: *mut Header,
    headers_size: usize,
    body_chunks: *mut Buffer,
    body_chunks_size: usize,
) {
    ask_config("bootstrap_extension_http_callout_done", config_envoy, config, |config, envoy| {
        // SAFETY: Envoy's lists live until the hook returns.
        let (headers, body) =
            unsafe { response(headers, headers_size, body_chunks, body_chunks_size) };
        config.on_http_callout_done(envoy, callout_id, callout_result(result), headers, body);
    });
}

pub unsafe extern "C" fn admin_request(
    config_envoy: ConfigEnvoy,
    config: ConfigModule,
    method: Buffer,
    path: Buffer,
    body: Buffer,
) -> u32 {
    ask_config("bootstrap_extension_admin_request", config_envoy, config, |config, envoy| {
        // SAFETY: Envoy's buffers live until the hook returns.
        let (method, path, body) =
            unsafe { (text(method), text(path), EnvoyBuffer::from_raw(body)) };
        let (status, answer) = config.on_admin_request(envoy, &method, &path, body.as_slice());
        envoy.admin_set_response(&answer);
        status
    })
    .unwrap_or(500)
}

pub unsafe extern "C" fn cluster_add_or_update(
    config_envoy: ConfigEnvoy,
    config: ConfigModule,
    name: Buffer,
) {
    ask_config(
        "bootstrap_extension_cluster_add_or_update",
        config_envoy,
        config,
        |config, envoy| {
            // SAFETY: Envoy's buffer lives until the hook returns.
            config.on_cluster_add_or_update(envoy, &unsafe { text(name) });
        },
    );
}

pub unsafe extern "C" fn cluster_removal(
    config_envoy: ConfigEnvoy,
    config: ConfigModule,
    name: Buffer,
) {
    ask_config("bootstrap_extension_cluster_removal", config_envoy, config, |config, envoy| {
        // SAFETY: Envoy's buffer lives until the hook returns.
        config.on_cluster_removal(envoy, &unsafe { text(name) });
    });
}

pub unsafe extern "C" fn listener_add_or_update(
    config_envoy: ConfigEnvoy,
    config: ConfigModule,
    name: Buffer,
) {
    ask_config(
        "bootstrap_extension_listener_add_or_update",
        config_envoy,
        config,
        |config, envoy| {
            // SAFETY: Envoy's buffer lives until the hook returns.
            config.on_listener_add_or_update(envoy, &unsafe { text(name) });
        },
    );
}

pub unsafe extern "C" fn listener_removal(
    config_envoy: ConfigEnvoy,
    config: ConfigModule,
    name: Buffer,
) {
    ask_config("bootstrap_extension_listener_removal", config_envoy, config, |config, envoy| {
        // SAFETY: Envoy's buffer lives until the hook returns.
        config.on_listener_removal(envoy, &unsafe { text(name) });
    });
}

/// Exports the hooks under Envoy's names, in the crate where it is expanded.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_bootstrap_hooks {
    () => {
        const _: () = {
            use ::std::ffi::c_void as V;
            use $crate::abi::envoy_dynamic_module_type_envoy_buffer as B;
            use $crate::abi::envoy_dynamic_module_type_envoy_http_header as H;
            use $crate::abi::envoy_dynamic_module_type_event_cb as E;
            $crate::__pass_on! {
                envoy_dynamic_module_on_bootstrap_extension_config_new = config_new(c: *mut V, n: B, b: B) -> *const V;
                envoy_dynamic_module_on_bootstrap_extension_config_destroy = config_destroy(c: *const V);
                envoy_dynamic_module_on_bootstrap_extension_new = new(c: *const V, e: *mut V) -> *const V;
                envoy_dynamic_module_on_bootstrap_extension_destroy = destroy(e: *const V);
                envoy_dynamic_module_on_bootstrap_extension_server_initialized = server_initialized(e: *mut V, m: *const V);
                envoy_dynamic_module_on_bootstrap_extension_worker_thread_initialized = worker_thread_initialized(e: *mut V, m: *const V);
                envoy_dynamic_module_on_bootstrap_extension_drain_started = drain_started(e: *mut V, m: *const V);
                envoy_dynamic_module_on_bootstrap_extension_shutdown = shutdown(e: *mut V, m: *const V, d: E, x: *mut V);
                envoy_dynamic_module_on_bootstrap_extension_config_scheduled = config_scheduled(c: *mut V, m: *const V, v: u64);
                envoy_dynamic_module_on_bootstrap_extension_timer_fired = timer_fired(c: *mut V, m: *const V, t: *mut V);
                envoy_dynamic_module_on_bootstrap_extension_file_changed = file_changed(c: *mut V, m: *const V, p: B, v: u32);
                envoy_dynamic_module_on_bootstrap_extension_http_callout_done = http_callout_done(c: *mut V, m: *const V, i: u64, r: u32, h: *mut H, n: usize, b: *mut B, k: usize);
                envoy_dynamic_module_on_bootstrap_extension_admin_request = admin_request(c: *mut V, m: *const V, a: B, p: B, b: B) -> u32;
                envoy_dynamic_module_on_bootstrap_extension_cluster_add_or_update = cluster_add_or_update(c: *mut V, m: *const V, n: B);
                envoy_dynamic_module_on_bootstrap_extension_cluster_removal = cluster_removal(c: *mut V, m: *const V, n: B);
                envoy_dynamic_module_on_bootstrap_extension_listener_add_or_update = listener_add_or_update(c: *mut V, m: *const V, n: B);
                envoy_dynamic_module_on_bootstrap_extension_listener_removal = listener_removal(c: *mut V, m: *const V, n: B);
            }
        };
    };
}

/// Exports `symbol = hook(arguments)` for each line.
#[doc(hidden)]
#[macro_export]
macro_rules! __pass_on {
    ($($symbol:ident = $hook:ident($($name:ident: $type:ty),*) $(-> $result:ty)?;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $symbol($($name: $type),*) $(-> $result)? {
            // SAFETY: Envoy's call, passed on.
            unsafe { $crate::__private::bootstrap_hooks::$hook($($name),*) }
        }
    )*};
}

const _: () = {
    use crate::abi::hooks;
    let _: hooks::bootstrap_extension_config_new = config_new;
    let _: hooks::bootstrap_extension_config_destroy = config_destroy;
    let _: hooks::bootstrap_extension_new = new;
    let _: hooks::bootstrap_extension_destroy = destroy;
    let _: hooks::bootstrap_extension_server_initialized = server_initialized;
    let _: hooks::bootstrap_extension_worker_thread_initialized = worker_thread_initialized;
    let _: hooks::bootstrap_extension_drain_started = drain_started;
    let _: hooks::bootstrap_extension_shutdown = shutdown;
    let _: hooks::bootstrap_extension_config_scheduled = config_scheduled;
    let _: hooks::bootstrap_extension_timer_fired = timer_fired;
    let _: hooks::bootstrap_extension_file_changed = file_changed;
    let _: hooks::bootstrap_extension_http_callout_done = http_callout_done;
    let _: hooks::bootstrap_extension_admin_request = admin_request;
    let _: hooks::bootstrap_extension_cluster_add_or_update = cluster_add_or_update;
    let _: hooks::bootstrap_extension_cluster_removal = cluster_removal;
    let _: hooks::bootstrap_extension_listener_add_or_update = listener_add_or_update;
    let _: hooks::bootstrap_extension_listener_removal = listener_removal;
};
