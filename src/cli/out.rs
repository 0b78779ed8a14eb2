//! What commands tell: data on standard output, talk on standard error. Neither panics when its reader went away.

use std::{
    fmt,
    io::{self, Write as _},
};

/// Nobody reads standard output any more: `rackwright … | head`.
#[derive(Debug, thiserror::Error)]
#[error("the reader of standard output went away")]
pub(super) struct ReaderGone;

/// The exit code then: what a shell shows of a program that SIGPIPE ended (128 + 13), as most do.
pub(super) const READER_GONE: u8 = 141;

/// Writes to standard output. Use it through [`out!`] and [`outln!`].
pub(super) fn write(text: fmt::Arguments<'_>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_fmt(text).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => ReaderGone.into(),
        _ => anyhow::Error::new(error).context("can't write to standard output"),
    })
}

/// Writes a line to standard error. That nobody reads it changes nothing. Use it through [`errln!`].
pub(super) fn tell(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// As `print!`, but gives an error.
macro_rules! out {
    ($($text:tt)*) => { $crate::cli::out::write(format_args!($($text)*)) };
}

/// As `println!`, but gives an error.
macro_rules! outln {
    () => { $crate::cli::out::write(format_args!("\n")) };
    ($($text:tt)*) => { $crate::cli::out::write(format_args!("{}\n", format_args!($($text)*))) };
}

/// As `eprintln!`, but never panics.
macro_rules! errln {
    ($($text:tt)*) => { $crate::cli::out::tell(format_args!($($text)*)) };
}

pub(super) use {errln, out, outln};
