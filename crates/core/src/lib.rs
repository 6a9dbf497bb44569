//! The scheduling core: endpoints, requests, plugins, the cycle, configuration.
