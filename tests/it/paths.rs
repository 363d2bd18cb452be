//! Hostile paths and planted files.
