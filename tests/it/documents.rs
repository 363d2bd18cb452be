//! What is documented is true: README commands, help, man pages, the sample configuration.
