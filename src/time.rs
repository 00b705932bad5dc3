//! Time as the reactor and the machines see it: microseconds since the start, never a wall clock.
//! Touches nothing; the operating system's clock is read in `net/mio.rs` alone.

use std::num::NonZeroU64;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time, in whole microseconds since the reactor's network was made.
///
/// Eight bytes, and `Option<Moment>` is eight bytes too: "never" is `None`, not a number that means it.
///
/// ```
/// use oneloop::time::Moment;
/// use std::time::Duration;
///
/// let later = Moment::START + Duration::from_secs(2);
/// assert_eq!(later - Moment::START, Duration::from_secs(2));
/// assert_eq!(Moment::START - later, Duration::ZERO); // never negative
/// assert_eq!(size_of::<Option<Moment>>(), 8);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(NonZeroU64);

impl Moment {
    /// The start, the smallest moment there is.
    pub const START: Moment = Moment(NonZeroU64::MIN);

    /// The moment that lies `elapsed` after the start.
    pub fn since_start(elapsed: Duration) -> Moment {
        Moment::START + elapsed
    }

    /// Microseconds since the start.
    pub fn as_micros(self) -> u64 {
        self.0.get() - 1
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    /// Saturates: a sum past the end (584,000 years) is the end.
    fn add(self, span: Duration) -> Moment {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Moment(self.0.saturating_add(micros))
    }
}

impl Sub for Moment {
    type Output = Duration;

    /// The time from `earlier` to `self`, zero if `earlier` is the later one.
    fn sub(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl std::fmt::Debug for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} us", self.as_micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_differences_saturate() {
        let end = Moment::START + Duration::MAX;
        assert_eq!(end + Duration::from_secs(1), end);
        assert_eq!(Moment::START - end, Duration::ZERO);
        assert_eq!(Moment::since_start(Duration::from_micros(7)).as_micros(), 7);
    }
}
