//! Content answers: lengths, bytes, connections, files that change meanwhile.
