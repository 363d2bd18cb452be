//! Where a backup is looked for, and in which order.
