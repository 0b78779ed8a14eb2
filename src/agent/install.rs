//! One install: choose, look, ask for leave, write, read back, seed, tell.

use std::{
    io,
    pin::pin,
    sync::{Arc, mpsc},
};

use tokio::{
    sync::{mpsc as channel, oneshot},
    time::{MissedTickBehavior, interval},
};

use super::{
    Disk, End, Host,
    client::{CallError, Client},
    download::Download,
    failure::{Failure, code},
    gpt,
    image::{Decoded, Piece, decode},
    run::in_thread,
    seed::{CIDATA, Seed, require_place, write_seed},
    write::{StopOnDrop, Watch, Written, verify, write},
};
use crate::model::{AgentEvent, DiskHint, HandoffPlace, ImageFormat, Install, MachineName, ObservedDisk, Phase, choose};

/// Pieces of the image that may wait for the decompressor. A piece is at most a few hundred kilobytes.
const PIECES: usize = 32;

/// Blocks that may wait for the disk.
const BLOCKS: usize = 4;

/// What the boot server wants.
pub(super) struct Order {
    pub(super) machine: MachineName,
    pub(super) install: Install,
    pub(super) system: DiskHint,
    pub(super) keep: Vec<DiskHint>,
    pub(super) call_home: String,
    pub(super) handoff: Option<HandoffPlace>,
}

/// Why an install or a wipe ended early.
pub(super) enum Stop {
    /// Something here does not work: the controller must know.
    Failed(Failure),
    /// The controller does not want it any more, or is not there.
    Denied(CallError),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failed(failure)
    }
}

impl From<CallError> for Stop {
    fn from(error: CallError) -> Self {
        Stop::Denied(error)
    }
}

/// Installs, tells the controller how it went, and says how to go on.
pub(super) async fn install(client: &Client, host: &Arc<dyn Host>, disks: io::Result<Vec<ObservedDisk>>, order: Order) -> End {
    let watch = Arc::new(Watch::default());
    let stop_on_drop = StopOnDrop(watch.clone());
    let done = tokio::select! {
        done = attempt(client, host, disks, &order, &watch) => done,
        error = tell_progress(client, &watch) => Err(Stop::Denied(error)),
    };
    drop(stop_on_drop);
    // Progress has ended here: a late one, refused because all is written already, must not look like a withdrawn leave.
    let result = match done {
        Ok((disk, written)) => client.report(written).await.map(|()| disk).map_err(Stop::from),
        Err(stop) => Err(stop),
    };
    match result {
        Ok(disk) => {
            let host = host.clone();
            let entry = in_thread("boot entry", move || host.set_boot_entry(&disk)).await;
            if let Err(error) = entry.map_err(|failure| failure.message).and_then(|set| set.map_err(|error| error.to_string())) {
                client.say(&format!("the firmware's boot entry can't be set ({error}); its own boot order counts"));
            }
            client.say("installed; rebooting");
            End::Reboot
        }
        Err(stop) => halt(client, &watch, stop).await,
    }
}

/// Tells why it ended early, if the controller does not know.
pub(super) async fn halt(client: &Client, watch: &Watch, stop: Stop) -> End {
    let Failure { code, message } = match stop {
        Stop::Denied(error) => return End::Halt { why: error.to_string() },
        Stop::Failed(failure) => failure,
    };
    client.say(&format!("failed ({code}): {message}"));
    let event = AgentEvent::Failed { wrote: watch.wrote(), code: code.to_owned(), message: message.clone() };
    match client.report(event).await {
        Ok(()) => End::Halt { why: message },
        Err(error) => End::Halt { why: format!("{message} (and it could not be told: {error})") },
    }
}

/// Tells progress as long as something is being done. Returns when the controller says that it may not go on.
pub(super) async fn tell_progress(client: &Client, watch: &Watch) -> CallError {
    let mut tick = interval(client.pace.progress);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Some(progress) = watch.progress()
            && let Err(error) = client.progress(progress).await
        {
            return error;
        }
    }
}

/// All up to the moment where nothing is left but to tell: the disk, and what to tell of it.
async fn attempt(
    client: &Client,
    host: &Arc<dyn Host>,
    disks: io::Result<Vec<ObservedDisk>>,
    order: &Order,
    watch: &Arc<Watch>,
) -> Result<(ObservedDisk, AgentEvent), Stop> {
    let disk = chosen(disks, order)?;
    let image = &order.install.image;
    let download = Download::open(client, &image.url).await?;
    let opened = open(host, &disk).await?;
    let (size, sector) = (opened.size(), opened.sector());
    let raw_length = download.length().filter(|_| image.format == ImageFormat::Raw);
    let known = image.size.max(raw_length).unwrap_or(0);
    require_room(known, size)?;

    let file_length = download.length().unwrap_or(0);
    let allow = async |first: Vec<u8>| {
        inspect(&first, size, sector, order.install.user_data.is_some())?;
        require_same(host, order, &disk).await?;
        client.say(&format!("writing to {} ({size} bytes)", disk.name));
        client.report(AgentEvent::Writing { disk: disk.clone() }).await?;
        // The answer may have taken hours.
        require_same(host, order, &disk).await?;
        watch.grant(known, file_length);
        Ok(())
    };
    let (decoded, written) = stream(download, opened, image.format, watch, allow).await?;
    check_digest(&decoded, &written, order)?;
    client.say(&format!("{} bytes written; reading them back", written.length));
    let bytes = written.length;
    finish(written, order, watch).await?;
    Ok((disk, AgentEvent::Written { digest: decoded.file, bytes }))
}

/// The disk that the order means among `disks`.
fn chosen(disks: io::Result<Vec<ObservedDisk>>, order: &Order) -> Result<ObservedDisk, Failure> {
    let disks = disks.map_err(|error| Failure::new(code::DISK_LIST, format!("the disks can't be listed: {error}")))?;
    Ok(choose(&disks, &order.system, &order.keep)?.clone())
}

/// Lists the disks again: one that came or went since may have made the choice another, or none.
async fn require_same(host: &Arc<dyn Host>, order: &Order, disk: &ObservedDisk) -> Result<(), Failure> {
    let host = host.clone();
    let now = chosen(in_thread("list", move || host.disks()).await?, order)?;
    if now != *disk {
        let text = format!("{} had {} when the agent started, now {} has it", disk.name, order.system, now.name);
        return Err(Failure::new(code::DISK_CHANGED, text));
    }
    Ok(())
}

pub(super) async fn open(host: &Arc<dyn Host>, disk: &ObservedDisk) -> Result<Box<dyn Disk>, Failure> {
    let (host, wanted) = (host.clone(), disk.clone());
    let opened = in_thread("open", move || host.open(&wanted)).await?;
    opened.map_err(|error| Failure::new(code::DISK_OPEN, format!("{} can't be opened: {error}", disk.name)))
}

fn require_room(needed: u64, size: u64) -> Result<(), Failure> {
    if needed > size {
        let text = format!("the image needs {needed} bytes, the disk has {size}; nothing was written");
        return Err(Failure::new(code::DISK_TOO_SMALL, text));
    }
    Ok(())
}

/// What the image's own partition table says before anything is written.
fn inspect(first: &[u8], size: u64, sector: u64, user_data: bool) -> Result<(), Failure> {
    let table = gpt::parse(first, sector);
    if let Some(other) = table.as_ref().map(|table| table.sector).filter(|made_for| *made_for != sector) {
        let text = format!(
            "the image is made for disks with sectors of {other} bytes, this one has sectors of {sector}: nothing would start from it; \
             nothing was written. Declare an image made for sectors of {sector} bytes, or format the disk to {other} if it can be"
        );
        return Err(Failure::new(code::DISK_SECTOR_SIZE, text));
    }
    require_room(table.as_ref().map_or(0, gpt::Table::end), size)?;
    require_place(table.as_ref().is_some_and(|table| table.named(CIDATA).is_some()), user_data)
}

/// Network, decompressor and disk at the same time. `allow` sees the first block, and only when it returns is it written.
async fn stream(
    download: Download,
    disk: Box<dyn Disk>,
    format: ImageFormat,
    watch: &Arc<Watch>,
    allow: impl AsyncFnOnce(Vec<u8>) -> Result<(), Stop>,
) -> Result<(Decoded, Written), Stop> {
    let (pieces, pieces_out) = channel::channel(PIECES);
    let mut work = pin!(put(pieces_out, disk, format, watch, allow));
    let (fed, done) = tokio::select! {
        biased;
        done = &mut work => (Ok(()), done),
        fed = feed(download, pieces) => (fed, work.await),
    };
    match (fed, done?) {
        (_, (Some(decoded), Some(written))) => Ok((decoded, written)),
        (Err(failure), _) => Err(failure.into()),
        (Ok(()), (Some(_), None)) => Err(Failure::new(code::TRUNCATED, "the image is empty").into()),
        (Ok(()), _) => Err(Failure::new(code::AGENT, "the install stopped without a reason").into()),
    }
}

/// From the network to the decompressor, until either ends. The channel closes without an end when the network fails for good.
async fn feed(mut download: Download, pieces: channel::Sender<Piece>) -> Result<(), Failure> {
    while let Some(bytes) = download.next().await? {
        if pieces.send(Piece::Data(bytes)).await.is_err() {
            return Ok(());
        }
    }
    // A decompressor that is gone has told why.
    let _ = pieces.send(Piece::End).await;
    Ok(())
}

/// From the decompressor to the disk. When it returns, nothing is being written any more.
async fn put(
    pieces: channel::Receiver<Piece>,
    disk: Box<dyn Disk>,
    format: ImageFormat,
    watch: &Arc<Watch>,
    allow: impl AsyncFnOnce(Vec<u8>) -> Result<(), Stop>,
) -> Result<(Option<Decoded>, Option<Written>), Stop> {
    let (blocks, blocks_out) = mpsc::sync_channel(BLOCKS);
    let (look, first) = oneshot::channel();
    let (go, may_go) = oneshot::channel();
    let received = watch.received.clone();
    let decoder = in_thread("decode", move || decode(pieces, format, &blocks, received));
    let shared = watch.clone();
    let writer = in_thread("write", move || write(disk, &blocks_out, look, may_go, &shared));
    if let Ok(first) = first.await {
        allow(first).await?;
        // A writer that is gone tells why below.
        let _ = go.send(());
    }
    // Both have ended before either's failure is told.
    let (decoded, written) = tokio::join!(decoder, writer);
    let written = written??;
    Ok((decoded??, written))
}

fn check_digest(decoded: &Decoded, written: &Written, order: &Order) -> Result<(), Failure> {
    let (wanted, seen) = (order.install.image.digest, decoded.file);
    if seen != wanted {
        let (file, raw) = (decoded.file_length, written.length);
        let text = format!("the image file has the digest {seen}, the manifest says {wanted} ({file} bytes received, {raw} written)");
        return Err(Failure::new(code::WRONG_DIGEST, text));
    }
    Ok(())
}

/// All that is left to do on the disk once the image is on it and known to be the right one. Only at its end can the disk be started from.
async fn finish(mut written: Written, order: &Order, watch: &Arc<Watch>) -> Result<(), Failure> {
    let seed = Seed {
        call_home: order.call_home.clone(),
        generation: order.install.generation,
        digest: order.install.image.digest,
        machine: order.machine.clone(),
        user_data: order.install.user_data.clone(),
        handoff: order.handoff.clone(),
    };
    let watch = watch.clone();
    in_thread("verify", move || {
        if !verify(&mut written, &watch)? {
            return Ok(());
        }
        watch.begin(Phase::Finishing, 0);
        write_seed(&mut written.disk, &seed)?;
        if watch.stopped() { Ok(()) } else { written.disk.reveal() }
    })
    .await?
}

#[cfg(test)]
mod tests {
    use super::{super::gpt::tests::head, *};

    #[test]
    fn an_image_made_for_another_sector_size_is_refused() {
        for (image, disk) in [(512, 4096), (4096, 512)] {
            let first = head(image, &[(CIDATA, 64, 127)]);
            assert_eq!(inspect(&first, 1 << 30, image as u64, true), Ok(()));
            let refused = inspect(&first, 1 << 30, disk, true).unwrap_err();
            assert_eq!(refused.code, code::DISK_SECTOR_SIZE);
            assert!(refused.message.contains(&format!("an image made for sectors of {disk} bytes")), "{refused}");
        }
        // Without a table there is nothing that counts in sectors.
        assert_eq!(inspect(&[9; 4096], 1 << 30, 4096, false), Ok(()));
    }
}
