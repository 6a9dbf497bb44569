//! The control plane: discovery, scraping, publishing.
