//! One transfer as a state machine without socket or clock.

use std::{borrow::Cow, ops::Range, time::Duration};

use bytes::Bytes;

use crate::wire::tftp::Packet;

/// RFC 1350.
const BLOCK_SIZE: usize = 512;
/// RFC 2348 section 2; the upper end is the configuration's.
const SMALLEST_BLOCK: usize = 8;
/// RFC 7440 allows 65,535. More than 64 blocks in flight were no faster in measurements, and overrun the receive buffers of
/// firmware, which then asks for all of them again.
const LARGEST_WINDOW: u64 = 64;
/// Before a packet is sent again, when the client asks for nothing else (RFC 2349 lets it).
const TIMEOUT: Duration = Duration::from_secs(1);
/// Longest that a client may ask for, in seconds. RFC 2349 has 255; then one packet would hold a transfer for 25 minutes.
const LONGEST_TIMEOUT: u64 = 10;
/// A client that is silent so many timeouts on end is gone.
const PATIENCE: u32 = 6;
/// A transfer that is not done after this is given up, however lively its client is: enough for a loader of 1 MiB in blocks of
/// 512 bytes, one by one, over a wire of 140 ms.
const LONGEST: Duration = Duration::from_secs(300);

/// What to do after an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send the option acknowledgement.
    SendOptions,
    /// Send these blocks.
    Send(Range<u64>),
    /// Nothing; go on waiting.
    Wait,
    /// The client has the whole file.
    Done,
    /// The transfer is over without that; why. Nothing more is sent.
    Over(String),
}

/// One transfer. Blocks are counted from 1 without wrapping; on the wire their number is taken modulo 65,536.
#[derive(Debug)]
pub struct Transfer {
    content: Bytes,
    block_size: usize,
    window: u64,
    timeout: Duration,
    options: Vec<(String, String)>,
    /// Waiting for the acknowledgement of the options.
    negotiating: bool,
    /// First block that is not acknowledged.
    base: u64,
    /// The window from `base` was sent again because of an acknowledgement below it.
    repeated: bool,
    silent: u32,
}

impl Transfer {
    /// Starts a transfer of `content` as `asked`, with blocks of at most `largest_block` bytes, and gives what to send first.
    /// Options that are unknown or have bad values are left out of the answer, as RFC 2347 says.
    pub fn start(content: Bytes, asked: &[(String, String)], largest_block: u16) -> (Self, Action) {
        let mut transfer = Self {
            block_size: BLOCK_SIZE,
            window: 1,
            timeout: TIMEOUT,
            options: Vec::new(),
            negotiating: false,
            base: 1,
            repeated: false,
            silent: 0,
            content,
        };
        for (name, value) in asked {
            transfer.option(name, value, usize::from(largest_block));
        }
        transfer.negotiating = !transfer.options.is_empty();
        let first = if transfer.negotiating { Action::SendOptions } else { transfer.send() };
        (transfer, first)
    }

    /// Takes a packet of the client, `spent` after the start.
    pub fn handle(&mut self, packet: &Packet<'_>, spent: Duration) -> Action {
        match packet {
            Packet::Ack { block } => unless_overdue(self.acknowledged(*block), spent),
            Packet::Error { code, message } => Action::Over(format!("the client ended it: error {code} {message}")),
            // A repeated request is answered by the timer.
            Packet::Request { .. } => Action::Wait,
            Packet::Data { .. } | Packet::OptionAck { .. } => Action::Over("the client sent what only servers send".to_owned()),
        }
    }

    /// Takes note that nothing came for [`Transfer::timeout`], `spent` after the start.
    pub fn timed_out(&mut self, spent: Duration) -> Action {
        self.silent += 1;
        self.repeated = false;
        if self.silent >= PATIENCE {
            return Action::Over("the client is silent".to_owned());
        }
        unless_overdue(if self.negotiating { Action::SendOptions } else { self.send() }, spent)
    }

    /// How long to wait before [`Transfer::timed_out`].
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A block to send.
    pub fn block(&self, number: u64) -> Packet<'_> {
        let start = usize::try_from(number - 1).unwrap_or(usize::MAX).saturating_mul(self.block_size).min(self.content.len());
        let end = start.saturating_add(self.block_size).min(self.content.len());
        Packet::Data { block: number as u16, data: Cow::Borrowed(&self.content[start..end]) }
    }

    /// The option acknowledgement.
    pub fn option_ack(&self) -> Packet<'static> {
        Packet::OptionAck { options: self.options.clone() }
    }

    fn option(&mut self, name: &str, value: &str, largest_block: usize) {
        let Ok(number) = value.parse::<u64>() else { return };
        if self.options.iter().any(|(known, _)| known == name) {
            return;
        }
        let granted = match name {
            "blksize" if number >= SMALLEST_BLOCK as u64 => {
                self.block_size = usize::try_from(number).unwrap_or(usize::MAX).min(largest_block.max(512));
                self.block_size as u64
            }
            "windowsize" if number >= 1 => {
                self.window = number.min(LARGEST_WINDOW);
                self.window
            }
            "timeout" if (1..=LONGEST_TIMEOUT).contains(&number) => {
                self.timeout = Duration::from_secs(number);
                number
            }
            "tsize" => self.content.len() as u64,
            _ => return,
        };
        self.options.push((name.to_owned(), granted.to_string()));
    }

    /// A last block may be empty: only a short one ends a file.
    fn last(&self) -> u64 {
        (self.content.len() / self.block_size) as u64 + 1
    }

    fn send(&self) -> Action {
        Action::Send(self.base..(self.base + self.window).min(self.last() + 1))
    }

    fn acknowledged(&mut self, block: u16) -> Action {
        if self.negotiating {
            if block != 0 {
                return Action::Wait;
            }
            self.negotiating = false;
            self.silent = 0;
            return self.send();
        }
        // How far beyond the last acknowledged block it is, modulo 65,536.
        let beyond = u64::from(block.wrapping_sub((self.base - 1) as u16));
        if beyond == 0 {
            return self.below();
        }
        if self.base - 1 + beyond >= (self.base + self.window).min(self.last() + 1) {
            return Action::Wait;
        }
        self.base += beyond;
        self.silent = 0;
        self.repeated = false;
        if self.base > self.last() { Action::Done } else { self.send() }
    }

    /// The block before the window was acknowledged again. In lock-step that is a duplicate, and sending again would double
    /// each further packet (the sorcerer's apprentice, RFC 1123 section 4.2.3.1). With a window it means that the window's first block
    /// was lost (RFC 7440 section 4); sent again once, then by the timer.
    fn below(&mut self) -> Action {
        if self.window == 1 || self.repeated {
            return Action::Wait;
        }
        self.repeated = true;
        self.send()
    }
}

fn unless_overdue(next: Action, spent: Duration) -> Action {
    match next {
        Action::SendOptions | Action::Send(_) if spent >= LONGEST => Action::Over(format!("not done after {} s", LONGEST.as_secs())),
        next => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn start(length: usize, options: &[(&str, &str)]) -> (Transfer, Action) {
        let options: Vec<_> = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Transfer::start(Bytes::from(vec![7; length]), &options, 1468)
    }

    const AT_ONCE: Duration = Duration::ZERO;

    fn ack(transfer: &mut Transfer, block: u16) -> Action {
        transfer.handle(&Packet::Ack { block }, AT_ONCE)
    }

    #[test]
    fn without_options_blocks_of_512_go_one_by_one_and_an_empty_one_ends_a_full_last() {
        let (mut transfer, first) = start(1024, &[]);
        assert_eq!(first, Action::Send(1..2));
        assert_eq!(ack(&mut transfer, 1), Action::Send(2..3));
        assert_eq!(ack(&mut transfer, 2), Action::Send(3..4));
        assert_eq!(transfer.block(3), Packet::Data { block: 3, data: Cow::Borrowed(&[]) });
        assert_eq!(ack(&mut transfer, 3), Action::Done);
    }

    #[test]
    fn only_good_options_that_were_asked_for_are_granted() {
        let asked = [("tsize", "0"), ("blksize", "65464"), ("windowsize", "1000"), ("timeout", "0"), ("x", "1"), ("tsize", "1")];
        let (transfer, first) = start(5000, &asked);
        assert_eq!(first, Action::SendOptions);
        let granted = [("tsize", "5000"), ("blksize", "1468"), ("windowsize", "64")];
        let granted = granted.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(transfer.options, granted);
        assert_eq!(start(5000, &[("blksize", "7"), ("windowsize", "a")]).1, Action::Send(1..2));
    }

    #[test]
    fn an_error_after_the_size_probe_ends_it_at_once() {
        let (mut transfer, _) = start(5000, &[("tsize", "0")]);
        assert!(matches!(transfer.handle(&Packet::Error { code: 8, message: "User aborted".into() }, AT_ONCE), Action::Over(_)));
    }

    #[test]
    fn a_duplicate_acknowledgement_is_not_answered_in_lock_step() {
        let (mut transfer, _) = start(5000, &[]);
        assert_eq!(ack(&mut transfer, 1), Action::Send(2..3));
        assert_eq!(ack(&mut transfer, 1), Action::Wait);
        assert_eq!(ack(&mut transfer, 0), Action::Wait);
        assert_eq!(ack(&mut transfer, 9), Action::Wait);
        assert_eq!(transfer.timed_out(AT_ONCE), Action::Send(2..3));
    }

    #[test]
    fn a_window_moves_to_the_acknowledged_block_and_repeats_once_when_its_first_is_lost() {
        let (mut transfer, _) = start(512 * 20, &[("windowsize", "4")]);
        assert_eq!(ack(&mut transfer, 0), Action::Send(1..5));
        assert_eq!(ack(&mut transfer, 0), Action::Send(1..5));
        assert_eq!(ack(&mut transfer, 0), Action::Wait);
        assert_eq!(ack(&mut transfer, 2), Action::Send(3..7));
        assert_eq!(ack(&mut transfer, 6), Action::Send(7..11));
        assert_eq!(ack(&mut transfer, 3), Action::Wait);
    }

    #[test]
    fn a_silent_client_is_given_up() {
        let (mut transfer, _) = start(5000, &[("timeout", "3")]);
        assert_eq!(transfer.timeout(), Duration::from_secs(3));
        assert_eq!((1..PATIENCE).filter(|_| transfer.timed_out(AT_ONCE) == Action::SendOptions).count(), 5);
        assert!(matches!(transfer.timed_out(AT_ONCE), Action::Over(_)));
    }

    #[test]
    fn a_long_timeout_is_not_granted() {
        let (transfer, first) = start(5000, &[("timeout", "10")]);
        assert_eq!((transfer.timeout(), first), (Duration::from_secs(10), Action::SendOptions));
        for long in ["11", "255", "18446744073709551615"] {
            let (transfer, first) = start(5000, &[("timeout", long)]);
            // Left out, since RFC 2349 lets a server grant no other value than the one asked for.
            assert_eq!((transfer.timeout(), first), (TIMEOUT, Action::Send(1..2)), "{long}");
        }
    }

    #[test]
    fn a_transfer_is_given_up_however_lively_its_client_is() {
        let (mut transfer, _) = start(512 * 1000, &[]);
        let late = |block| Packet::Ack { block };
        assert_eq!(transfer.handle(&late(1), LONGEST - Duration::from_millis(1)), Action::Send(2..3));
        assert!(matches!(transfer.handle(&late(2), LONGEST), Action::Over(_)));
        assert!(matches!(start(5000, &[("tsize", "0")]).0.timed_out(LONGEST), Action::Over(_)));
        // The last acknowledgement is welcome at any time.
        assert_eq!(start(5, &[]).0.handle(&late(1), LONGEST), Action::Done);
    }

    #[test]
    fn block_numbers_wrap() {
        let (mut transfer, _) = start(8 * 70_000, &[("blksize", "8")]);
        let mut action = ack(&mut transfer, 0);
        let mut blocks = 0u64;
        while let Action::Send(range) = action {
            blocks = range.end - 1;
            action = ack(&mut transfer, blocks as u16);
        }
        assert_eq!((action, blocks), (Action::Done, 70_001));
    }

    proptest! {
        /// A receiver as in RFC 7440, on a wire that loses packets in both directions.
        #[test]
        fn a_file_arrives_whole_over_a_lossy_wire(
            content in proptest::collection::vec(any::<u8>(), 0..3000), window in 1u16..9, block in 8u16..600, losses: u64,
        ) {
            let asked = vec![("blksize".to_owned(), block.to_string()), ("windowsize".to_owned(), window.to_string())];
            let (mut transfer, mut action) = Transfer::start(Bytes::from(content.clone()), &asked, 1468);
            let (mut received, mut expected, mut loss) = (Vec::new(), 1u16, losses);
            let mut lost = || { loss = loss.rotate_left(1); loss & 3 == 3 };
            for _ in 0..5000 {
                let mut answer = None;
                match action {
                    Action::Done => break,
                    Action::Over(why) => return Err(TestCaseError::reject(why)),
                    Action::Wait => {}
                    Action::SendOptions => answer = Some(0),
                    Action::Send(range) => for number in range {
                        if lost() { continue }
                        let Packet::Data { block: number, data } = transfer.block(number) else { unreachable!() };
                        if number == expected {
                            received.extend_from_slice(&data);
                            expected += 1;
                        }
                        answer = Some(expected - 1);
                    },
                }
                action = match answer.filter(|_| !lost()) {
                    Some(block) => transfer.handle(&Packet::Ack { block }, AT_ONCE),
                    None => transfer.timed_out(AT_ONCE),
                };
            }
            prop_assert_eq!(received, content);
        }
    }
}
