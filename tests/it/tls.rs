//! TLS on the listening socket.
