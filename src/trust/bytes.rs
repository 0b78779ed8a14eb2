//! SSH's wire encoding (RFC 4251, section 5): lengths are 32 bits, big-endian, in front of what they count.

/// What is left to read.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    pub(super) fn uint32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.uint32()?).ok()?;
        self.take(length)
    }

    /// A positive number, without the zero byte that keeps its sign.
    pub(super) fn number(&mut self) -> Option<&'a [u8]> {
        let bytes = self.string()?;
        let bytes = bytes.strip_prefix(&[0]).unwrap_or(bytes);
        (bytes.first() != Some(&0)).then_some(bytes)
    }

    /// Nothing may follow: what is not read is not vouched for.
    pub(super) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// `bytes` as a string on the wire.
pub(super) fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    to.extend(bytes);
}

/// `bytes` with zeros in front, as wide as `width`.
pub(super) fn widened(bytes: &[u8], width: usize) -> Option<Vec<u8>> {
    let zeros = width.checked_sub(bytes.len())?;
    Some([vec![0; zeros], bytes.to_vec()].concat())
}
