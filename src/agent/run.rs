//! One agent start, from hello to reboot.

use std::{
    any::Any,
    io,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
    thread,
};

use tokio::sync::oneshot;

use super::{
    End, Host, Pace, Params,
    client::Client,
    failure::{Failure, code},
    install::{Order, install},
    wipe::{self, wipe},
};
use crate::model::{AgentCommand, AgentHello, ObservedDisk};

/// Does what the boot server says and returns how it ended. `boot_id` is chosen at random for each start of the machine.
///
/// Cancelling it (dropping the future) stops all writing within one block. It needs a tokio runtime with time and network.
pub async fn run(params: Params, host: Arc<dyn Host>, boot_id: String, pace: Pace) -> End {
    let client = match Client::new(&params, &boot_id, host.clone(), pace) {
        Ok(client) => client,
        Err(why) => return End::Halt { why },
    };
    let (hello, disks) = match inventory(host.clone(), boot_id).await {
        Ok(found) => found,
        Err(failure) => return End::Halt { why: failure.message },
    };
    client.say(&format!("asking {} what to do", params.url));
    match client.hello(&hello).await {
        Err(error) => End::Halt { why: error.to_string() },
        Ok(AgentCommand::Refuse { why }) => End::Halt { why },
        Ok(AgentCommand::BootFromDisk) => {
            client.say("the disk is installed already; rebooting into it");
            End::Reboot
        }
        Ok(AgentCommand::SwitchOff) => {
            client.say("the disks are wiped already; switching off");
            End::PowerOff
        }
        Ok(AgentCommand::Wipe { attempt, method, targets, keep }) => {
            client.say(&format!("{attempt}: WIPING by {method}"));
            wipe(&client, &host, disks, &wipe::Order { boot_id: hello.boot_id, method, targets, keep }).await
        }
        Ok(AgentCommand::Install { attempt, install: wanted, system, keep, call_home, handoff }) => {
            client.say(&format!("{attempt}: installing {} ({})", wanted.image.name, wanted.image.digest.short()));
            let order = Order { machine: attempt.machine, install: *wanted, system, keep, call_home, handoff: handoff.map(|place| *place) };
            install(&client, &host, disks, order).await
        }
    }
}

/// What the machine is. Disks that can't be listed are told as none, and are a failure once one is needed.
async fn inventory(host: Arc<dyn Host>, boot_id: String) -> Result<(AgentHello, io::Result<Vec<ObservedDisk>>), Failure> {
    in_thread("inventory", move || {
        let disks = host.disks();
        let hello = AgentHello {
            boot_id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            serial: host.serial(),
            uuid: host.uuid(),
            disks: disks.as_ref().cloned().unwrap_or_default(),
            nics: host.nics(),
            uefi: host.uefi(),
        };
        (hello, disks)
    })
    .await
}

/// Runs what blocks in a thread of its own: hundreds of simulated agents would use up a shared pool, and wait for each other.
///
/// The thread starts at once, not at the first poll.
///
/// # Errors
/// `agent` when the thread can't be started or panicked.
pub(super) fn in_thread<T, W>(name: &'static str, work: W) -> impl Future<Output = Result<T, Failure>> + Send + use<T, W>
where
    T: Send + 'static,
    W: FnOnce() -> T + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
        // What `work` had is dropped by a panic, and nobody looks at it afterwards.
        let done = panic::catch_unwind(AssertUnwindSafe(work));
        // Nobody waits any more: the install was cancelled.
        let _ = sender.send(done.map_err(|panic| said(panic.as_ref())));
    });
    async move {
        started.map_err(|error| Failure::new(code::AGENT, format!("the thread {name} can't be started: {error}")))?;
        let done = receiver.await.unwrap_or_else(|_| Err("it ended without a word".to_owned()));
        done.map_err(|why| Failure::new(code::AGENT, format!("the agent is broken, which is our fault: thread {name}: {why}")))
    }
}

/// The text of a panic.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked without a text".to_owned())
}
