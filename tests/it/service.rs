//! Init scripts, packages, proxies.
