//! How long to wait before the next try. Pure: the randomness is given.

use crate::limits::Limits;
use std::time::Duration;

/// Exponential backoff with full jitter: each time somewhere between the least time and a bound that doubles.
///
/// The bound does not begin at the least time: when a server comes back at once, a thousand clients that all wait less than
/// 100 ms are a thousand connections in 100 ms. It begins so high that no 100 ms hold more than a twentieth of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next wait; `random` is any number, all of them alike.
    ///
    /// ```
    /// use oneloop::protocol::client::backoff::Backoff;
    /// use std::time::Duration;
    ///
    /// let mut backoff = Backoff::default();
    /// assert_eq!(backoff.next(0), Duration::from_millis(100));
    /// assert_eq!(backoff.next(u64::MAX), Duration::from_millis(4000));
    /// ```
    pub fn next(&mut self, random: u64) -> Duration {
        let bound = Limits::RECONNECT_FIRST.saturating_mul(1 << self.tries.min(16)).min(Limits::RECONNECT_MOST);
        self.tries = self.tries.saturating_add(1);
        let span_us = (bound - Limits::RECONNECT_LEAST).as_micros() + 1; // both ends can come
        Limits::RECONNECT_LEAST + Duration::from_micros(((u128::from(random) * span_us) >> 64) as u64)
    }

    /// A connection has lived for long enough: from the beginning.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_to_30_s_and_the_least_stays() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::default();
        for bound in [2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            let mut again = backoff;
            assert_eq!((backoff.next(u64::MAX), again.next(0)), (ms(bound), ms(100)));
        }
        for _ in 0..100 {
            assert_eq!(backoff.next(u64::MAX), ms(30_000), "and never overflows");
        }
        backoff.reset();
        assert_eq!(backoff.next(u64::MAX), ms(2_000));
    }

    #[test]
    fn every_part_of_the_span_comes_as_often_as_every_other() {
        let mut tenths = [0; 10];
        for number in 0..10_000u64 {
            let wait = Backoff::default().next(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)); // spread evenly
            tenths[((wait - Limits::RECONNECT_LEAST).as_micros() * 10 / 1_900_001) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (980..=1020).contains(count)), "{tenths:?}");
    }
}
