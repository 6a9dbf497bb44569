//! What a module implements for a bootstrap extension.

use crate::abi::envoy_dynamic_module_type_http_callout_result;
use crate::bootstrap::{
    EnvoyBootstrapExtension, EnvoyBootstrapExtensionConfig, EnvoyBootstrapExtensionTimer,
};
use crate::buffer::EnvoyBuffer;
use crate::completion::CompletionCallback;

/// The extension's configuration. All hooks run on the main thread.
#[allow(unused_variables)]
pub trait BootstrapExtensionConfig: Send + Sync {
    /// Makes the extension.
    fn new_bootstrap_extension(
        &self,
        envoy_extension: &mut dyn EnvoyBootstrapExtension,
    ) -> Box<dyn BootstrapExtension>;

    /// A scheduler of this configuration was committed with `event_id`.
    fn on_scheduled(&self, envoy_config: &mut dyn EnvoyBootstrapExtensionConfig, event_id: u64) {}

    /// A callout has ended. Headers and body are there on success only.
    fn on_http_callout_done(
        &self,
        envoy_config: &mut dyn EnvoyBootstrapExtensionConfig,
        callout_id: u64,
        result: envoy_dynamic_module_type_http_callout_result,
        response_headers: Option<&[(EnvoyBuffer<'_>, EnvoyBuffer<'_>)]>,
        response_body: Option<&[EnvoyBuffer<'_>]>,
    ) {
    }

    /// A timer has run out; arm it again here if it is to repeat.
    fn on_timer_fired(
        &self,
        envoy_config: &mut dyn EnvoyBootstrapExtensionConfig,
        timer: &dyn EnvoyBootstrapExtensionTimer,
    ) {
    }

    /// A watched file has changed; `events` is a mask of the `FILE_WATCHER_EVENT_` constants.
    fn on_file_changed(
        &self,
        envoy_config: &mut dyn EnvoyBootstrapExtensionConfig,
        path: &str,
        events: u32,
    ) {
    }

    /// A request to a page that the extension has registered on the admin port. Returns status and body.
    fn on_admin_request(
        &self,
        envoy_config: &mut dyn EnvoyBootstrapExtensionConfig,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> (u32, String) {
        (404, String::new())
    }

    /// A cluster was added or changed.
    fn on_cluster_add_or_update(
        &self,
        envoy_config: &mut dyn EnvoyBootstrapExtensionConfig,
        cluster_name: &str,
    ) {
    }

    /// A cluster was removed.
    fn on_cluster_removal(
        &self,
        envoy_config: &mut dyn EnvoyBootstrapExtensionConfig,
        cluster_name: &str,
    ) {
    }

    /// A listener was added or changed.
    fn on_listener_add_or_update(
        &self,
        envoy_config: &mut dyn EnvoyBootstrapExtensionConfig,
        listener_name: &str,
    ) {
    }

    /// A listener was removed.
    fn on_listener_removal(
        &self,
        envoy_config: &mut dyn EnvoyBootstrapExtensionConfig,
        listener_name: &str,
    ) {
    }
}

/// The extension. Its hooks are told one at a time.
#[allow(unused_variables)]
pub trait BootstrapExtension: Send + Sync {
    /// The server is initialised; workers start now.
    fn on_server_initialized(&mut self, envoy_extension: &mut dyn EnvoyBootstrapExtension) {}

    /// On threads that run streams, when they have started.
    fn on_worker_thread_initialized(&mut self, envoy_extension: &mut dyn EnvoyBootstrapExtension) {}

    /// The server has begun to drain.
    fn on_drain_started(&mut self, envoy_extension: &mut dyn EnvoyBootstrapExtension) {}

    /// The server shuts down and waits for `completion`: the place to stop threads.
    fn on_shutdown(
        &mut self,
        envoy_extension: &mut dyn EnvoyBootstrapExtension,
        completion: CompletionCallback,
    ) {
    }
}
