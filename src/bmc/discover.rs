//! Which resource is the machine. Found by following links from the root; a BMC may describe baseboards, DPUs or several hosts,
//! and power must never go to the wrong one.

use std::collections::BTreeSet;

use super::{
    budget::{self, Budget},
    document::Document,
    error::Error,
    quirks,
    session::Channel,
};

/// Members of a collection over all its pages, each once. A page that leads back to one before ends it.
pub(super) async fn members(channel: &mut Channel, collection: &str) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut pages = BTreeSet::new();
    let mut read = Budget::default();
    let mut next = Some(collection.to_owned());
    while let Some(page) = next.take().filter(|page| pages.insert(page.clone())) {
        budget::at_most(budget::MAX_PAGES, pages.len(), collection, "pages")?;
        let document = channel.get(&page).await?;
        read.take(collection, &document)?;
        found.extend(document.members().into_iter().filter(|member| seen.insert(member.trim_end_matches('/').to_owned())));
        budget::at_most(budget::MAX_MEMBERS, found.len(), collection, "members")?;
        next = document.next_page();
    }
    Ok(found)
}

/// The system that is the host, and its URI.
///
/// Chosen by what it can do: it has a Reset action and, better, Bios or Boot. `wanted` is the path of the target's address, which
/// names one of several hosts behind one BMC. Two that are equally good are refused: nothing may be done to the wrong machine.
pub(super) async fn host(channel: &mut Channel, wanted: Option<&str>) -> Result<(String, Document), Error> {
    let root = channel.root().await?;
    let address = channel.address().to_owned();
    let nothing = |why: String| Error::NoHost { url: address.clone(), why };
    let systems = root.link(&["Systems"]).ok_or_else(|| nothing("its root links to no Systems".into()))?;
    let mut best: Vec<(u8, String, Document)> = Vec::new();
    let mut skipped = Vec::new();
    let mut problem = None;
    let mut read = Budget::default();
    for uri in members(channel, &systems).await? {
        if wanted.is_some_and(|wanted| !same_path(wanted, &uri)) {
            continue;
        }
        match channel.get(&uri).await {
            Ok(system) => {
                read.take(&systems, &system)?;
                match quirks::is_no_host(&system) {
                    Some(why) => skipped.push(format!("{uri}: {why}")),
                    None => best.push((fitness(&system), uri, system)),
                }
            }
            Err(error) if error.ends_the_conversation() => return Err(error),
            Err(error) => problem = Some(error),
        }
    }
    // One that could not be read may be the better one.
    if let Some(error) = problem {
        return Err(error);
    }
    let highest = best.iter().map(|(fitness, ..)| *fitness).max();
    best.retain(|(fitness, ..)| Some(*fitness) == highest);
    match (best.pop(), best.len()) {
        (Some((_, uri, system)), 0) => Ok((uri, system)),
        (Some((_, uri, _)), others) => {
            Err(nothing(format!("{} systems could be the host; add the path of one, such as {uri}, to the address", others + 1)))
        }
        (None, _) if skipped.is_empty() => {
            Err(nothing(format!("{systems} has no member{}", wanted.map(|w| format!(" {w}")).unwrap_or_default())))
        }
        (None, _) => Err(nothing(skipped.join(", "))),
    }
}

fn fitness(system: &Document) -> u8 {
    let reset = system.action("#ComputerSystem.Reset").is_some();
    let firmware = system.has(&["Bios"]) || system.has(&["Boot"]);
    u8::from(reset) * 2 + u8::from(firmware)
}

fn same_path(a: &str, b: &str) -> bool {
    a.trim_end_matches('/') == b.trim_end_matches('/')
}
