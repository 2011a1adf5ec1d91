//! Work done once per key however many ask for it at the same time: two pulls of one layer download it once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Mutex as Gate;

/// One gate per key, kept only while somebody holds or waits for it.
pub struct OncePerKey<K> {
    gates: Mutex<HashMap<K, Arc<Gate<()>>>>,
}

impl<K> Default for OncePerKey<K> {
    fn default() -> Self {
        Self { gates: Mutex::default() }
    }
}

impl<K: Hash + Eq + Clone> OncePerKey<K> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until nobody else works on `key`, then runs `work`. The second in the row looks first whether the thing is
    /// there already; that question is part of its `work`.
    pub async fn run<T>(&self, key: K, work: impl Future<Output = T>) -> T {
        let gate = {
            let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(gates.entry(key.clone()).or_default())
        };
        let outcome = {
            let _mine = gate.lock().await;
            work.await
        };
        drop(gate);
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if gates.get(&key).is_some_and(|gate| Arc::strong_count(gate) == 1) {
            gates.remove(&key);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn one_at_a_time_and_nothing_left() {
        let once = OncePerKey::new();
        let inside = AtomicUsize::new(0);
        let work = || async {
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
            tokio::task::yield_now().await;
            inside.fetch_sub(1, Ordering::SeqCst);
        };
        tokio::join!(once.run("a", work()), once.run("a", work()), once.run("a", work()));
        assert!(once.gates.lock().unwrap().is_empty());
    }
}
