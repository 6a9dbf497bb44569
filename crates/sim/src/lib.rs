//! A vLLM-compatible simulator for people without GPUs.
