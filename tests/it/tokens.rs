//! Tokens as the Panel mints them, and every way to get them wrong.
