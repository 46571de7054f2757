//! (model)
