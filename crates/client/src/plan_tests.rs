//! Holds plans against a naive model.
