//! Descriptors, connections and workers run out, and come back.
