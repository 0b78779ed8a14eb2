//! Writes the archive that the kernel unpacks as its first file system: "newc" (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).

use std::io::{self, Write};

/// An archive in the making. Owner 0, time 0, inodes in order: the same content gives the same bytes.
pub(super) struct Archive<W> {
    out: W,
    inode: u32,
    written: u64,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, inode: 0, written: 0 }
    }

    pub(super) fn folder(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, 0o040_755, 2, (0, 0), &[])
    }

    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entry(path, 0o100_000 | mode, 1, (0, 0), content)
    }

    /// A character device. In an archive it needs no privilege.
    pub(super) fn device(&mut self, path: &str, mode: u32, number: (u32, u32)) -> io::Result<()> {
        self.entry(path, 0o020_000 | mode, 1, number, &[])
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.header("TRAILER!!!", 0, 1, (0, 0), 0)?;
        self.pad(512)?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &str, mode: u32, links: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let length = u32::try_from(content.len()).map_err(|_| io::Error::other(format!("{path} is larger than an archive can hold")))?;
        self.header(path, mode, links, device, length)?;
        self.put(content)?;
        self.pad(4)
    }

    fn header(&mut self, path: &str, mode: u32, links: u32, (major, minor): (u32, u32), length: u32) -> io::Result<()> {
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let fields = [self.inode, mode, 0, 0, links, 0, length, 0, 0, major, minor, path.len() as u32 + 1, 0];
        let header: String = fields.iter().map(|field| format!("{field:08X}")).collect();
        self.put(format!("070701{header}{path}\0").as_bytes())?;
        self.pad(4)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad(&mut self, to: u64) -> io::Result<()> {
        let length = self.written.next_multiple_of(to) - self.written;
        self.put(&vec![0; length as usize])
    }
}
