//! WebSocket frames: RFC 6455, section 5, without extensions. Touches only the bytes it is given.

use crate::buffer::Queue;

/// What a frame is, RFC 6455, section 5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// More of the message that the last data frame began or continued.
    Continuation = 0,
    /// A message of UTF-8, or its beginning.
    Text = 1,
    /// A message of bytes, or its beginning.
    Binary = 2,
    /// The sender has said its last.
    Close = 8,
    /// Wants a pong with the same payload.
    Ping = 9,
    /// A sign of life.
    Pong = 10,
}

impl Opcode {
    fn of(bits: u8) -> Option<Opcode> {
        Some(match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }

    /// Whether it may stand between the frames of a message, and is small and whole.
    pub fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// The longest payload of a control frame: 125, what needs no extended length.
pub const CONTROL_MAX: usize = 125;

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub opcode: Opcode,
    /// Whether its message ends with it.
    pub is_last: bool,
    /// How long its payload is.
    pub len: u64,
    /// What its payload was masked with.
    pub mask: Option<Mask>,
}

/// What no frame may be: RFC 6455 has 1002 for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation(pub &'static str);

impl Header {
    /// The header at the front of `bytes`, and how many of them it takes; `None` if it is not all there.
    ///
    /// ```
    /// use oneloop::wire::websocket::{Header, Opcode};
    ///
    /// let (header, used) = Header::read(b"\x89\x00").unwrap().unwrap();
    /// assert_eq!((header.opcode, header.len, used), (Opcode::Ping, 0, 2));
    /// assert_eq!(Header::read(b"\x81\xfe\x01"), Ok(None));
    /// ```
    ///
    /// # Errors
    /// A reserved bit or opcode, a control frame that is long or a fragment, a length that could have been written shorter or
    /// has its highest bit set. Said as soon as it can be seen.
    pub fn read(bytes: &[u8]) -> Result<Option<(Header, usize)>, Violation> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Violation("a reserved bit is set"));
        }
        let opcode = Opcode::of(first & 0x0f).ok_or(Violation("a reserved opcode"))?;
        let is_last = first & 0x80 != 0;
        if opcode.is_control() && !is_last {
            return Err(Violation("a control frame in fragments"));
        }
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        let short = second & 0x7f;
        if opcode.is_control() && short > CONTROL_MAX as u8 {
            return Err(Violation("a control frame of more than 125 bytes"));
        }
        let (len, mut used) = match short {
            126 => {
                let Some(long) = bytes[2..].first_chunk() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(*long)), 4)
            }
            127 => {
                let Some(long) = bytes[2..].first_chunk() else { return Ok(None) };
                (u64::from_be_bytes(*long), 10)
            }
            short => (u64::from(short), 2),
        };
        if len >> 63 != 0 || used != Header::len_for_u64(len) {
            return Err(Violation("a length that is not written as short as it can be"));
        }
        let mut mask = None;
        if second & 0x80 != 0 {
            let Some(key) = bytes[used..].first_chunk() else { return Ok(None) };
            mask = Some(Mask(*key));
            used += 4;
        }
        Ok(Some((Header { opcode, is_last, len, mask }, used)))
    }

    /// How long the header of an unmasked frame is whose payload has `len` bytes.
    pub fn len_for(len: usize) -> usize {
        Header::len_for_u64(len as u64)
    }

    fn len_for_u64(len: u64) -> usize {
        match len {
            0..=125 => 2,
            126..=0xffff => 4,
            _ => 10,
        }
    }
}

/// Adds a whole frame, unmasked, as a server sends it.
pub fn push_frame(opcode: Opcode, payload: &[u8], out: &mut Queue) {
    let (header, used) = header_for(opcode, payload.len() as u64);
    out.push(&header[..used]);
    out.push(payload);
}

/// The same masked, as a client sends it, and must.
pub fn push_masked(opcode: Opcode, payload: &[u8], key: [u8; 4], out: &mut Queue) {
    let (mut header, used) = header_for(opcode, payload.len() as u64);
    header[1] |= 0x80;
    out.push(&header[..used]);
    out.push(&key);
    let from = out.len();
    out.push(payload);
    Mask(key).apply(&mut out.as_mut_slice()[from..]);
}

/// The header of a whole frame, not masked, and how long it is.
fn header_for(opcode: Opcode, len: u64) -> ([u8; 10], usize) {
    let mut header = [0; 10];
    header[0] = 0x80 | opcode as u8;
    let used = Header::len_for_u64(len);
    match used {
        2 => header[1] = len as u8,
        4 => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            header[1] = 127;
            header[2..10].copy_from_slice(&len.to_be_bytes());
        }
    }
    (header, used)
}

/// What a client's payload is masked with: the next byte with the first of the four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask(pub [u8; 4]);

impl Mask {
    /// Takes the mask off (or puts it on) the next `bytes`, and stands behind them afterwards.
    ///
    /// ```
    /// use oneloop::wire::websocket::Mask;
    ///
    /// let (mut mask, mut bytes) = (Mask(*b"\x01\x02\x03\x04"), *b"abcdef");
    /// mask.apply(&mut bytes[..1]);
    /// mask.apply(&mut bytes[1..]);
    /// assert_eq!(&bytes, b"````dd"); // 'a' ^ 1, 'b' ^ 2, 'c' ^ 3, 'd' ^ 4, 'e' ^ 1, 'f' ^ 2
    /// ```
    pub fn apply(&mut self, bytes: &mut [u8]) {
        // Sixteen at a time, so that the compiler can take a register for them.
        let mut wide = [0; 16];
        wide.chunks_exact_mut(4).for_each(|four| four.copy_from_slice(&self.0));
        let mut chunks = bytes.chunks_exact_mut(16);
        for chunk in &mut chunks {
            chunk.iter_mut().zip(wide).for_each(|(byte, key)| *byte ^= key);
        }
        let rest = chunks.into_remainder();
        rest.iter_mut().zip(wide).for_each(|(byte, key)| *byte ^= key);
        self.0.rotate_left(rest.len() % 4);
    }
}

/// Whether a close frame may carry this number: RFC 6455, section 7.4, and the registry that it founds.
pub fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_is_read_again_whatever_its_length() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
            let mut out = Queue::default();
            push_frame(Opcode::Binary, &vec![7; len], &mut out);
            let (header, used) = Header::read(out.as_slice()).unwrap().unwrap();
            assert_eq!(header, Header { opcode: Opcode::Binary, is_last: true, len: len as u64, mask: None });
            assert_eq!((used, out.len()), (Header::len_for(len), Header::len_for(len) + len));
            for short in 0..used {
                assert_eq!(Header::read(&out.as_slice()[..short]), Ok(None), "{short} of {used}");
            }
        }
    }

    #[test]
    fn what_is_pushed_masked_is_read_again() {
        for len in [0, 1, 125, 126, 65_535, 65_536] {
            let (mut out, payload) = (Queue::default(), vec![7; len]);
            out.push(b"before");
            push_masked(Opcode::Text, &payload, [1, 2, 3, 4], &mut out);
            let frame = &mut out.as_mut_slice()[6..];
            let (header, used) = Header::read(frame).unwrap().unwrap();
            assert_eq!((header.opcode, header.len, header.mask), (Opcode::Text, len as u64, Some(Mask([1, 2, 3, 4]))));
            assert!(len == 0 || frame[used..] != payload, "it is not sent as it is");
            Mask([1, 2, 3, 4]).apply(&mut frame[used..]);
            assert_eq!(frame[used..], payload);
        }
    }

    #[test]
    fn what_no_frame_may_be_is_said_at_the_first_byte_that_shows_it() {
        for (bytes, at) in [
            (&b"\xc1"[..], 1),                                 // RSV1
            (b"\x91", 1),                                      // RSV3
            (b"\x83", 1),                                      // opcode 3
            (b"\x8b", 1),                                      // opcode 11
            (b"\x09", 1),                                      // a ping that is not the last
            (b"\x89\xfe", 2),                                  // a ping of more than 125
            (b"\x82\x7e\x00\x7d", 4),                          // 125 in two bytes
            (b"\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", 10), // 65,535 in eight
            (b"\x82\x7f\x80\x00\x00\x00\x00\x01\x00\x00", 10), // 2^63 and more
        ] {
            assert!(Header::read(bytes).is_err(), "{}", bytes.escape_ascii());
            assert_eq!(bytes.len(), at);
            assert_eq!(Header::read(&bytes[..at - 1]), Ok(None), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_mask_comes_off_in_any_pieces() {
        let key = *b"\x12\x34\x56\x78";
        let plain: Vec<u8> = (0..100).collect();
        let masked: Vec<u8> = plain.iter().enumerate().map(|(index, byte)| byte ^ key[index % 4]).collect();
        for first in 0..plain.len() {
            for second in first..plain.len() {
                let (mut mask, mut bytes) = (Mask(key), masked.clone());
                mask.apply(&mut bytes[..first]);
                mask.apply(&mut bytes[first..second]);
                mask.apply(&mut bytes[second..]);
                assert_eq!(bytes, plain, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn only_numbers_with_a_meaning_close() {
        for code in [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999] {
            assert!(is_close_code(code), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!is_close_code(code), "{code}");
        }
    }
}
