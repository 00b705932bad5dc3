//! What a connection has unfinished: the inbox (the rest of what came), the message that is coming in pieces, and the outbox
//! (what is still to be written), behind one box that an idle connection does not own, and the pool those boxes come from. Touches memory only.

use crate::limits::Limits;
use crate::time::Moment;
use std::fmt;

/// Bytes in order: added at the back, taken from the front, always readable as one slice.
///
/// ```
/// use oneloop::buffer::Queue;
///
/// let mut queue = Queue::default();
/// queue.push(b"hello");
/// queue.consume(2);
/// assert_eq!(queue.as_slice(), b"llo");
/// ```
#[derive(Debug, Default)]
pub struct Queue {
    bytes: Vec<u8>,
    /// `bytes[..head]` has been taken already; `head <= bytes.len()`.
    head: usize,
}

impl Queue {
    /// What waits, oldest byte first.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    /// The same, to be changed in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.head..]
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    /// Whether none do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds `more` at the back.
    pub fn push(&mut self, more: &[u8]) {
        let would_grow = more.len() > self.bytes.capacity() - self.bytes.len();
        // Moving costs at most as many bytes as were taken since the last move: constant per byte, and the vector stays
        // within twice what waits.
        if would_grow && self.head >= self.len() {
            self.bytes.copy_within(self.head.., 0);
            self.bytes.truncate(self.len());
            self.head = 0;
        }
        self.bytes.extend_from_slice(more);
    }

    /// Takes `count` bytes from the front; all of them, if there are fewer.
    pub fn consume(&mut self, count: usize) {
        self.head += count.min(self.len());
        if self.is_empty() {
            self.clear();
        }
    }

    /// How many bytes it could hold without asking for more memory.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives back memory that it does not need, if that is more than what it needs and a kilobyte.
    pub fn fit(&mut self) {
        if self.capacity() > 2 * self.len() + 1024 {
            self.bytes.drain(..self.head);
            self.head = 0;
            self.bytes.shrink_to_fit();
        }
    }

    /// Drops all but the first `count` bytes.
    pub fn truncate(&mut self, count: usize) {
        self.bytes.truncate(self.head + count);
    }

    /// Drops everything, but keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.head = 0;
    }
}

impl fmt::Write for Queue {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// All that a connection has unfinished.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// Input that the machine has not consumed.
    pub(crate) inbox: Queue,
    /// What the machine has put together of a message that came in pieces.
    pub(crate) message: Queue,
    /// Output that the kernel has not taken.
    pub(crate) outbox: Queue,
    /// When the kernel last took some of it, or when it began to wait.
    pub(crate) progress: Moment,
    /// Went above the high mark and has not fallen below the low one since.
    pub(crate) choked: bool,
    /// The inbox holds input that the machine left because the outbox was full, not because it is unfinished.
    pub(crate) held: bool,
    /// Input (message and inbox) and outbox bytes, and the memory of all, as last told to the pool.
    booked: (usize, usize, usize),
}

impl Buffers {
    fn new() -> Buffers {
        Buffers {
            inbox: Queue::default(),
            message: Queue::default(),
            outbox: Queue::default(),
            progress: Moment::START,
            choked: false,
            held: false,
            booked: (0, 0, 0),
        }
    }
}

impl Buffers {
    /// What it takes in memory, empty or not.
    fn taken_bytes(&self) -> usize {
        size_of::<Buffers>() + self.inbox.capacity() + self.message.capacity() + self.outbox.capacity()
    }

    /// Input that is of no use yet, in bytes.
    pub(crate) fn unfinished(&self) -> usize {
        self.inbox.len() + self.message.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.unfinished() == 0 && self.outbox.is_empty()
    }
}

/// Where boxes come from and go to, and the sum of what all of them hold.
#[derive(Debug)]
pub(crate) struct Pool {
    // Boxed because a stream holds a box: taking one must not move 100 bytes.
    #[allow(clippy::vec_box)]
    free: Vec<Box<Buffers>>,
    /// What the free ones take in memory, in bytes.
    free_bytes: usize,
    /// Bytes in all inboxes and messages.
    pub(crate) inboxes: usize,
    /// Bytes in all outboxes.
    pub(crate) outboxes: usize,
    /// What the boxes out there take in memory, in bytes: more than they hold, for they came with room to grow.
    lent_bytes: usize,
}

impl Pool {
    pub(crate) fn new() -> Pool {
        Pool { free: Vec::new(), free_bytes: 0, inboxes: 0, outboxes: 0, lent_bytes: 0 }
    }

    /// All queued bytes together.
    pub(crate) fn queued(&self) -> usize {
        self.inboxes + self.outboxes
    }

    /// An empty box.
    pub(crate) fn take(&mut self) -> Box<Buffers> {
        let Some(buffers) = self.free.pop() else { return Box::new(Buffers::new()) };
        self.free_bytes -= buffers.taken_bytes();
        buffers
    }

    /// Takes note of what `buffers` holds now. While all boxes together take more than the memory budget, it gives back what
    /// it does not need: a thousand peers that are owed a line each must not hold a thousand large buffers.
    pub(crate) fn book(&mut self, buffers: &mut Buffers, limits: &Limits) {
        if self.lent_bytes > limits.memory_bytes {
            buffers.inbox.fit();
            buffers.message.fit();
            buffers.outbox.fit();
        }
        self.enter(buffers, (buffers.unfinished(), buffers.outbox.len(), buffers.taken_bytes()));
    }

    fn enter(&mut self, buffers: &mut Buffers, now: (usize, usize, usize)) {
        self.inboxes = self.inboxes - buffers.booked.0 + now.0;
        self.outboxes = self.outboxes - buffers.booked.1 + now.1;
        self.lent_bytes = self.lent_bytes - buffers.booked.2 + now.2;
        buffers.booked = now;
    }

    /// Takes a box back, whatever is in it.
    pub(crate) fn give_back(&mut self, mut buffers: Box<Buffers>, limits: &Limits) {
        buffers.inbox.clear();
        buffers.message.clear();
        buffers.outbox.clear();
        self.enter(&mut buffers, (0, 0, 0));
        (buffers.choked, buffers.held) = (false, false);
        let bytes = buffers.taken_bytes();
        if self.free_bytes + bytes <= limits.pool_bytes {
            self.free_bytes += bytes;
            self.free.push(buffers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_keeps_order_and_stays_within_twice_what_waits() {
        let mut queue = Queue::default();
        let (mut next_in, mut next_out) = (0u32, 0u32);
        for round in 0..10_000usize {
            for _ in 0..round % 7 {
                queue.push(&next_in.to_be_bytes());
                next_in += 1;
            }
            for _ in 0..round % 5 {
                if let Some(head) = queue.as_slice().first_chunk::<4>() {
                    assert_eq!(u32::from_be_bytes(*head), next_out);
                    next_out += 1;
                    queue.consume(4);
                }
            }
            assert_eq!(queue.len(), (next_in - next_out) as usize * 4);
            assert!(queue.bytes.len() <= 2 * queue.len().max(queue.bytes.capacity() / 2));
        }
        assert!(next_out > 10_000);
    }

    #[test]
    fn the_pool_books_every_byte_and_forgets_it_when_the_box_comes_back() {
        let (mut pool, limits) = (Pool::new(), Limits::default());
        let mut one = pool.take();
        one.inbox.push(b"abc");
        one.outbox.push(b"de");
        pool.book(&mut one, &limits);
        one.outbox.consume(1);
        pool.book(&mut one, &limits);
        assert_eq!((pool.inboxes, pool.outboxes, pool.queued()), (3, 1, 4));
        pool.give_back(one, &limits);
        assert_eq!(pool.queued(), 0);
        assert_eq!(pool.free.len(), 1);
        let mut large = pool.take();
        large.outbox.push(&vec![0; limits.pool_bytes]);
        pool.give_back(large, &limits);
        assert_eq!((pool.free.len(), pool.free_bytes), (0, 0), "a box that does not fit is not kept");
        assert_eq!(pool.lent_bytes, 0);
    }

    #[test]
    fn boxes_give_back_what_they_do_not_need_when_all_together_take_too_much() {
        let (mut pool, limits) = (Pool::new(), Limits { memory_bytes: 100_000, ..Limits::default() });
        let mut boxes: Vec<_> = (0..100).map(|_| pool.take()).collect();
        for buffers in &mut boxes {
            buffers.outbox.push(&[7; 10_000]);
            buffers.outbox.consume(9_990);
            pool.book(buffers, &limits);
        }
        for buffers in &mut boxes {
            pool.book(buffers, &limits);
            assert_eq!(buffers.outbox.as_slice(), [7; 10]);
        }
        assert_eq!(pool.queued(), 1000);
        assert!(pool.lent_bytes <= limits.memory_bytes, "{}", pool.lent_bytes);
    }
}
