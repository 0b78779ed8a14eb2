//! How much one BMC may list. Broken firmware links in circles or repeats a page for ever, and the controller's memory is for all.

use super::{document::Document, error::Error};

/// Pages of one collection: 100 pages of 50.
pub(super) const MAX_PAGES: usize = 100;

/// Members of one collection, and links of one list. A large server has 250 firmware versions and 100 drives.
pub(super) const MAX_MEMBERS: usize = 1000;

/// Resources that are read for one part of the inventory.
pub(super) const MAX_RESOURCES: usize = 2000;

/// Bytes of their answers. A resource has 2 KiB, seldom 20.
pub(super) const MAX_BYTES: usize = 16 << 20;

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct Budget {
    resources: usize,
    bytes: usize,
}

impl Budget {
    /// Counts one resource.
    ///
    /// # Errors
    /// [`Error::TooMany`]: it is one too many.
    pub(super) fn take(&mut self, url: &str, document: &Document) -> Result<(), Error> {
        self.resources += 1;
        self.bytes += document.size;
        at_most(MAX_RESOURCES, self.resources, url, "resources")?;
        at_most(MAX_BYTES, self.bytes, url, "bytes")
    }
}

/// An error if `count` is more than `limit`.
pub(super) fn at_most(limit: usize, count: usize, url: &str, what: &'static str) -> Result<(), Error> {
    if count > limit { Err(Error::TooMany { url: url.to_owned(), what, limit }) } else { Ok(()) }
}
