//! Real download clients, interrupted and resumed.
