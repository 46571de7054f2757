//! Random bytes from the operating system, or from a thread's own source, which a simulator sets.

use std::cell::RefCell;

/// Fills bytes.
pub type Source = Box<dyn FnMut(&mut [u8])>;

thread_local! {
    static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) };
}

/// From now on this thread's random bytes come from `source`, so that what it does can be done again; `None`: from the
/// operating system. For simulations, never for keys that guard anything.
pub fn set_thread_source(source: Option<Source>) {
    SOURCE.set(source);
}

/// `N` random bytes, fit for keys and nonces.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SOURCE.with_borrow_mut(|source| match source {
        Some(source) => source(&mut bytes),
        None => getrandom::fill(&mut bytes).expect("the operating system gives random bytes"),
    });
    bytes
}

/// A random number.
pub fn number() -> u64 {
    u64::from_le_bytes(bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_s_own_source_is_used_until_it_is_taken_away() {
        set_thread_source(Some(Box::new(|bytes| bytes.fill(7))));
        assert_eq!(bytes::<3>(), [7; 3]);
        set_thread_source(None);
        assert_ne!(bytes::<16>(), [7; 16]);
    }
}
