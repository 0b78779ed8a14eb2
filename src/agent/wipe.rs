//! One wipe: choose, look, ask for leave, wipe all disks side by side, read them back, tell.

use std::{
    io,
    sync::{Arc, mpsc},
};

use super::{
    End, Host,
    client::Client,
    failure::{Failure, code},
    install::{Stop, halt, open, tell_progress},
    run::in_thread,
    wipe_disk::Ready,
    write::{StopOnDrop, Watch},
};
use crate::model::{AgentEvent, DiskHint, DiskProof, ObservedDisk, Targets, WipeMethod, choose_to_wipe};

/// Most disks that are wiped at a time. A storage node has a thousand; a controller's queue is full long before.
const AT_ONCE: usize = 48;

/// What the boot server wants.
pub(super) struct Order {
    /// This start of the agent: the places that are read follow from it.
    pub(super) boot_id: String,
    pub(super) method: WipeMethod,
    pub(super) targets: Targets,
    pub(super) keep: Vec<DiskHint>,
}

/// Wipes, tells the controller how it went, and says how to go on.
pub(super) async fn wipe(client: &Client, host: &Arc<dyn Host>, disks: io::Result<Vec<ObservedDisk>>, order: &Order) -> End {
    let watch = Arc::new(Watch::default());
    let stop_on_drop = StopOnDrop(watch.clone());
    let done = tokio::select! {
        done = attempt(client, host, disks, order, &watch) => done,
        error = tell_progress(client, &watch) => Err(Stop::Denied(error)),
    };
    drop(stop_on_drop);
    let told = match done {
        Ok(proof) => client.report(AgentEvent::Wiped { proof }).await.map_err(Stop::from),
        Err(stop) => Err(stop),
    };
    match told {
        Ok(()) => {
            client.say("wiped and read back; switching off");
            End::PowerOff
        }
        Err(stop) => halt(client, &watch, stop).await,
    }
}

/// All up to the moment where nothing is left but to tell.
async fn attempt(
    client: &Client,
    host: &Arc<dyn Host>,
    disks: io::Result<Vec<ObservedDisk>>,
    order: &Order,
    watch: &Arc<Watch>,
) -> Result<Vec<DiskProof>, Stop> {
    let disks = chosen(disks, order)?;
    if order.targets == Targets::All {
        require_none_barred(host, &disks).await?;
    }
    let ready = look(host, &disks, order).await?;
    require_same(host, order, &disks).await?;
    let names: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
    client.say(&format!("wiping {} by {}", names.join(", "), order.method));
    client.report(AgentEvent::Wiping { disks: disks.clone() }).await?;
    // The answer may have taken hours.
    require_same(host, order, &disks).await?;
    watch.grant(ready.iter().map(Ready::total).sum(), 0);
    Ok(wipe_all(ready, watch).await?)
}

/// The disks that the order means among `disks`.
fn chosen(disks: io::Result<Vec<ObservedDisk>>, order: &Order) -> Result<Vec<ObservedDisk>, Failure> {
    let disks = disks.map_err(|error| Failure::new(code::DISK_LIST, format!("the disks can't be listed: {error}")))?;
    Ok(choose_to_wipe(&disks, &order.targets, &order.keep)?.into_iter().cloned().collect())
}

/// Lists the disks again: one that came or went since may have made the choice another, or none.
async fn require_same(host: &Arc<dyn Host>, order: &Order, disks: &[ObservedDisk]) -> Result<(), Failure> {
    let host = host.clone();
    let now = chosen(in_thread("list", move || host.disks()).await?, order)?;
    if now != disks {
        let names = |disks: &[ObservedDisk]| disks.iter().map(|disk| disk.name.clone()).collect::<Vec<_>>().join(", ");
        let text = format!("{} were to be wiped when the agent started, now {} are", names(disks), names(&now));
        return Err(Failure::new(code::DISK_CHANGED, text));
    }
    Ok(())
}

/// *All* must not leave out in silence what it can't wipe, nor wipe what may be another machine's.
async fn require_none_barred(host: &Arc<dyn Host>, disks: &[ObservedDisk]) -> Result<(), Failure> {
    let own = host.clone();
    let barred = in_thread("list", move || own.barred()).await?;
    let barred = barred.map_err(|error| Failure::new(code::DISK_LIST, format!("the disks can't be listed: {error}")))?;
    // One that is listed and not chosen is one to keep.
    let listed = |name: &str| disks.iter().any(|disk| disk.name == name);
    match barred.iter().find(|barred| barred.code == code::DISK_READ_ONLY || listed(&barred.name)) {
        Some(barred) => {
            let text = format!("{} {}; name the disks to wipe instead of all; nothing was wiped", barred.name, barred.why);
            Err(Failure::new(barred.code, text))
        }
        None => Ok(()),
    }
}

/// Opens all disks, and looks whether each can be wiped so: nothing is begun while one can't.
async fn look(host: &Arc<dyn Host>, disks: &[ObservedDisk], order: &Order) -> Result<Vec<Ready>, Failure> {
    let mut ready = Vec::new();
    for disk in disks {
        let opened = open(host, disk).await?;
        let (seen, method, boot_id) = (disk.clone(), order.method, order.boot_id.clone());
        ready.push(in_thread("look", move || Ready::new(opened, &seen, method, &boot_id)).await??);
    }
    Ok(ready)
}

/// Wipes them side by side. One that fails does not stop the others; the failure says which were wiped all the same.
async fn wipe_all(ready: Vec<Ready>, watch: &Arc<Watch>) -> Result<Vec<DiskProof>, Failure> {
    watch.writes();
    let count = ready.len();
    let (todo, queue) = mpsc::sync_channel(count.max(1));
    for one in ready.into_iter().enumerate() {
        // The queue has room for all.
        let _ = todo.send(one);
    }
    drop(todo);
    let queue = Arc::new(std::sync::Mutex::new(queue));
    let work = |_| {
        let (queue, watch) = (queue.clone(), watch.clone());
        in_thread("wipe", move || {
            let mut done = Vec::new();
            loop {
                let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).try_recv();
                let Ok((number, one)) = next else { return done };
                done.push((number, one.wipe(&watch)));
            }
        })
    };
    let threads: Vec<_> = (0..count.min(AT_ONCE)).map(work).collect();
    let mut done = Vec::new();
    for thread in threads {
        done.extend(thread.await?);
    }
    done.sort_by_key(|(number, _)| *number);
    let (mut proofs, mut failure, mut stopped) = (Vec::new(), None::<Failure>, done.len() < count);
    for (_, one) in done {
        match one {
            Ok(Some(proof)) => proofs.push(proof),
            Ok(None) => stopped = true,
            Err(other) => {
                failure = Some(match failure {
                    None => other,
                    Some(first) => Failure::new(first.code, format!("{}; {}", first.message, other.message)),
                })
            }
        }
    }
    match failure {
        Some(failure) if proofs.is_empty() => Err(failure),
        Some(Failure { code, message }) => {
            let wiped: Vec<String> = proofs.iter().map(ToString::to_string).collect();
            Err(Failure::new(code, format!("{message}; wiped all the same: {}", wiped.join("; "))))
        }
        None if stopped => Err(Failure::new(code::AGENT, "the wipe was stopped")),
        None => Ok(proofs),
    }
}
