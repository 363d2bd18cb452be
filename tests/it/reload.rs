//! Signals: draining, reloading.
