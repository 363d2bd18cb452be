//! Workers, handing over, and what happens when tiny_http ends.
