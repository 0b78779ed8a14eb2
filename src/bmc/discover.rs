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
/// Two that are equally good are refused: nothing may be done to the wrong machine.
pub(super) async fn host(channel: &mut Channel, wanted: Option<&str>) -> Result<(String, Document), Error> {
    let mut candidates = candidates(channel, wanted).await?;
    let nothing = |why: String| Error::NoHost { url: channel.address().to_owned(), why };
    match (candidates.best.pop(), candidates.best.len()) {
        (Some((uri, system)), 0) => Ok((uri, system)),
        (Some((uri, _)), others) => {
            Err(nothing(format!("{} systems could be the host; add the path of one, such as {uri}, to the address", others + 1)))
        }
        (None, _) => Err(nothing(candidates.why_none(wanted))),
    }
}

/// Systems that could be the host.
pub(super) struct Candidates {
    /// The collection that they were found in.
    pub(super) systems: String,
    /// The best ones, all equally good, with their URIs.
    pub(super) best: Vec<(String, Document)>,
    /// Those that are no hosts, each with the reason.
    pub(super) skipped: Vec<String>,
}

impl Candidates {
    /// Why there is none.
    pub(super) fn why_none(&self, wanted: Option<&str>) -> String {
        let member = wanted.map(|path| format!(" {path}")).unwrap_or_default();
        if self.skipped.is_empty() { format!("{} has no member{member}", self.systems) } else { self.skipped.join(", ") }
    }
}

/// Looks for the host, chosen by what it can do: it has a Reset action and, better, Bios or Boot. `wanted` is the path of the target's
/// address, which names one of several hosts behind one BMC.
pub(super) async fn candidates(channel: &mut Channel, wanted: Option<&str>) -> Result<Candidates, Error> {
    let root = channel.root().await?;
    let no_systems = || Error::NoHost { url: channel.address().to_owned(), why: "its root links to no Systems".into() };
    let systems = root.link(&["Systems"]).ok_or_else(no_systems)?;
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
    let best = best.into_iter().filter(|(fitness, ..)| Some(*fitness) == highest).map(|(_, uri, system)| (uri, system)).collect();
    Ok(Candidates { systems, best, skipped })
}

fn fitness(system: &Document) -> u8 {
    let reset = system.action("#ComputerSystem.Reset").is_some();
    let firmware = system.has(&["Bios"]) || system.has(&["Boot"]);
    u8::from(reset) * 2 + u8::from(firmware)
}

fn same_path(a: &str, b: &str) -> bool {
    a.trim_end_matches('/') == b.trim_end_matches('/')
}
