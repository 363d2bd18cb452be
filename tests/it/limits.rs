//! Shares of one address and one link, queue deadlines.
