//! A bootstrap extension: it holds Envoy's readiness until a timer has run, and answers `/example` on the admin port with
//! what has happened so far.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use envoy_proxy_dynamic_modules_rust_sdk::*;

declare_bootstrap_init_functions!(|| true, new_config);

/// What has happened, in order.
type Story = Arc<Mutex<Vec<String>>>;

fn tell(story: &Story, event: impl Into<String>) {
    story.lock().unwrap_or_else(PoisonError::into_inner).push(event.into());
}

struct Config {
    story: Story,
    timer: Box<dyn EnvoyBootstrapExtensionTimer>,
}

fn new_config(
    envoy: &mut dyn EnvoyBootstrapExtensionConfig,
    name: &str,
    _config: &[u8],
) -> Option<Box<dyn BootstrapExtensionConfig>> {
    let story = Story::default();
    tell(&story, name);
    if !envoy.register_admin_handler("/example", "what the example has seen", true, false) {
        envoy_log_error!("no page on the admin port");
        return None;
    }
    let timer = envoy.new_timer();
    timer.enable(Duration::from_millis(20));
    Some(Box::new(Config { story, timer }))
}

impl BootstrapExtensionConfig for Config {
    fn new_bootstrap_extension(
        &self,
        _envoy: &mut dyn EnvoyBootstrapExtension,
    ) -> Box<dyn BootstrapExtension> {
        Box::new(Extension { story: Arc::clone(&self.story) })
    }

    fn on_timer_fired(
        &self,
        envoy: &mut dyn EnvoyBootstrapExtensionConfig,
        timer: &dyn EnvoyBootstrapExtensionTimer,
    ) {
        if timer.id() == self.timer.id() {
            tell(&self.story, "timer");
            let scheduler = envoy.new_scheduler();
            std::thread::spawn(move || scheduler.commit(7));
        }
    }

    fn on_scheduled(&self, envoy: &mut dyn EnvoyBootstrapExtensionConfig, event_id: u64) {
        tell(&self.story, format!("event {event_id}"));
        envoy.signal_init_complete();
    }

    fn on_admin_request(
        &self,
        _envoy: &mut dyn EnvoyBootstrapExtensionConfig,
        method: &str,
        path: &str,
        _body: &[u8],
    ) -> (u32, String) {
        assert!(!path.ends_with("panic"), "the page was asked to panic");
        let story = self.story.lock().unwrap_or_else(PoisonError::into_inner).join(", ");
        (200, format!("{method} {path}: {story}"))
    }
}

struct Extension {
    story: Story,
}

impl BootstrapExtension for Extension {
    fn on_server_initialized(&mut self, envoy: &mut dyn EnvoyBootstrapExtension) {
        let known = envoy.get_gauge_value("server.concurrency").is_some();
        tell(&self.story, format!("server initialized, gauge known: {known}"));
    }

    fn on_worker_thread_initialized(&mut self, _envoy: &mut dyn EnvoyBootstrapExtension) {
        tell(&self.story, "worker");
    }
}
