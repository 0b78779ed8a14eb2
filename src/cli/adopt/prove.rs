//! Before a file is written: what a controller would make of it.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};

use crate::{
    manifest::{
        self, Cache,
        adopt::{Found, Verdict, Wanted},
    },
    model::{
        Action, BmcTarget, Brake, Commit, CommitId, Drift, DriftClass, FileEntry, FileKind, Files, Fleet, History, MachineName,
        MachinePlan, Observation, Problem, SecretName, Timestamp, Trust, Unknown,
    },
    plan::{self, Input},
};

/// A file as a commit would have it.
pub(super) fn entry(text: &str) -> anyhow::Result<FileEntry> {
    let id = git2::Oid::hash_object(git2::ObjectType::Blob, text.as_bytes()).context("can't hash a manifest")?;
    let id = id.as_bytes().try_into().context("a blob id has 20 bytes")?;
    Ok(FileEntry { id, kind: FileKind::Regular, bytes: text.as_bytes().into() })
}

/// Whether profile, image and secret are there: asked before any BMC is, with a machine that is not.
pub(super) fn names_are_there(files: &Files, wanted: &Wanted, secret: &SecretName) -> anyhow::Result<()> {
    let seen = Observation {
        nics: crate::model::Seen::Known(Vec::new()),
        ..Observation::blank(Timestamp::UNIX_EPOCH, "nobody", &Unknown::NotReported)
    };
    let identity = crate::model::ObservedIdentity { serial: Some("rackwright-adopt-trial".to_owned()), ..Default::default() };
    let seen = Observation { identity: crate::model::Seen::Known(identity), ..seen };
    let address = "https://rackwright-adopt.invalid".to_owned();
    let target = BmcTarget { address, credentials: Some(secret.clone()), trust: Trust::Ca };
    let found = Found { target, seen, host_name: None, serial_is_sku: false, name: None };
    let verdicts = manifest::adopt::adopt(&[found], &Fleet::default(), files, wanted);
    let [Verdict::New(manifest)] = verdicts.as_slice() else { return Ok(()) };
    let mut files = files.clone();
    files.insert(manifest.path.clone(), entry(&manifest.text)?);
    let loaded = manifest::load(&files, &mut Cache::default());
    match loaded.problems.iter().find(|problem| problem.is_error()) {
        None => Ok(()),
        Some(problem) => bail!("{}{}", problem.message, hint(problem)),
    }
}

fn hint(problem: &Problem) -> String {
    problem.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default()
}

/// Takes back each manifest that a controller would not simply note: one that is no valid part of the fleet, or whose plan has more than a
/// claim, and nothing after it.
///
/// # Errors
/// The fleet would be broken elsewhere, or the planner broke the law; nothing can be written then.
pub(super) fn left_alone(mut verdicts: Vec<Verdict>, found: &[Found], before: &Fleet, files: &Files) -> anyhow::Result<Vec<Verdict>> {
    loop {
        let mut all = files.clone();
        let mut new: BTreeMap<String, usize> = BTreeMap::new();
        for (n, verdict) in verdicts.iter().enumerate() {
            if let Verdict::New(manifest) = verdict {
                all.insert(manifest.path.clone(), entry(&manifest.text)?);
                new.insert(manifest.path.clone(), n);
            }
        }
        if new.is_empty() {
            return Ok(verdicts);
        }
        let loaded = manifest::load(&all, &mut Cache::default());
        let mut refused = BTreeMap::new();
        for problem in loaded.problems.iter().filter(|problem| problem.is_error()) {
            match new.get(&problem.file) {
                Some(n) => refused.insert(*n, format!("its manifest would not be valid: {}{}", problem.message, hint(problem))),
                None => bail!("with the new machines, {} line {} would be wrong: {}", problem.file, problem.line, problem.message),
            };
        }
        if refused.is_empty() {
            let seen = seen(&verdicts, found);
            refused = disturbed(&verdicts, &loaded.fleet, before, &seen)?;
        }
        if refused.is_empty() {
            return Ok(verdicts);
        }
        for (n, why) in refused {
            verdicts[n] = Verdict::Refused(why);
        }
    }
}

fn seen(verdicts: &[Verdict], found: &[Found]) -> BTreeMap<MachineName, Observation> {
    let of = |(verdict, found): (&Verdict, &Found)| match verdict {
        Verdict::New(manifest) => Some((manifest.machine.clone(), found.seen.clone())),
        Verdict::Known { .. } | Verdict::Refused(_) => None,
    };
    verdicts.iter().zip(found).filter_map(of).collect()
}

/// Machines of which a plan, before or after they are claimed, says more than that they are claimed.
fn disturbed(
    verdicts: &[Verdict],
    fleet: &Fleet,
    before: &Fleet,
    seen: &BTreeMap<MachineName, Observation>,
) -> anyhow::Result<BTreeMap<usize, String>> {
    let now = seen.values().map(|seen| seen.at).max().unwrap_or(Timestamp::UNIX_EPOCH);
    let first = planned(fleet, &plan::baseline(before, now), seen, now)?;
    let later = planned(fleet, &plan::baseline(fleet, now), seen, now)?;
    let mut refused = BTreeMap::new();
    for (n, verdict) in verdicts.iter().enumerate() {
        let Verdict::New(manifest) = verdict else { continue };
        let why = [(&first, true), (&later, false)].into_iter().find_map(|(plan, claims)| more(plan.get(&manifest.machine)?, claims));
        refused.extend(why.map(|why| (n, format!("its manifest would not leave it as it is: {why}"))));
    }
    Ok(refused)
}

fn planned(
    fleet: &Fleet,
    history: &History,
    seen: &BTreeMap<MachineName, Observation>,
    now: Timestamp,
) -> anyhow::Result<BTreeMap<MachineName, MachinePlan>> {
    let commit = Commit { id: CommitId([0; 20]), subject: "adoption".to_owned(), author: String::new(), time: now, approvals: Vec::new() };
    let (alive, brake) = (BTreeMap::new(), Brake::default());
    let deadlines = plan::Deadlines::default();
    let input = Input {
        commit: &commit,
        fleet,
        problems: &[],
        seen,
        history,
        alive: &alive,
        probes: &Default::default(),
        former: None,
        brake: &brake,
        deadlines,
        now,
    };
    let plan = plan::plan(&input);
    if let Some(violation) = plan::check(&plan, &input).first() {
        bail!(
            "the controller would not execute the plan for these manifests: {violation}. This is a fault of Rackwright; please report it"
        );
    }
    Ok(plan.machines)
}

/// What a machine's plan says beyond a claim.
fn more(part: &MachinePlan, claims: bool) -> Option<String> {
    let step = part.steps.iter().find(|step| !(claims && matches!(step.action, Action::Claim { .. })));
    let step = step.map(|step| step.action.to_string());
    let held = || part.held.first().map(ToString::to_string);
    let waiting = || part.waiting.as_ref().map(|waiting| waiting.why.clone());
    // A boot override stands in no manifest: it is shown, whatever is declared.
    let own = |drift: &&Drift| !claims && drift.class != Some(DriftClass::Boot);
    let drift = || part.drift.iter().find(own).map(|drift| format!("{} is {}, declared {}", drift.field, drift.observed, drift.desired));
    step.or_else(held).or_else(waiting).or_else(drift)
}
