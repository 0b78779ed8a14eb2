//! What became of each machine: a line for each, and what to do next.

use serde_json::json;

use super::{Args, Outcome, What};
use crate::cli::{
    get::table,
    out::{errln, out, outln},
    plural,
};

/// Prints manifests or results on standard output, and what to do on standard error.
pub(super) fn show(args: &Args, secret: Option<&(String, String)>, results: &[Outcome]) -> anyhow::Result<()> {
    let secret = secret.filter(|_| results.iter().any(|result| matches!(result.what, What::New(_))));
    if args.json {
        let rows: Vec<_> = results.iter().map(|result| row(args, result)).collect();
        outln!("{}", serde_json::to_string_pretty(&rows)?)?;
    } else if results.iter().all(|result| matches!(result.what, What::Untrusted(..) | What::Failed(_))) {
        results
            .iter()
            .filter(|result| matches!(result.what, What::Failed(_)))
            .for_each(|result| errln!("{}: {}", result.bmc, line(result)));
        untrusted(results)?;
    } else if args.dry_run {
        let secret = secret.map(|(path, text)| (path.as_str(), text.as_str()));
        let machines = results.iter().filter_map(|result| match &result.what {
            What::New(manifest) => Some((manifest.path.as_str(), manifest.text.as_str())),
            _ => None,
        });
        for (path, text) in secret.into_iter().chain(machines) {
            out!("---\n# {path}\n{text}")?;
        }
        results.iter().filter(|result| !matches!(result.what, What::New(_))).for_each(|result| errln!("{}: {}", result.bmc, line(result)));
    } else {
        let rows = results.iter().map(|result| vec![result.bmc.clone(), machine(result), line(result)]);
        out!("{}", table(&["BMC", "MACHINE", "RESULT"], rows))?;
        untrusted(results)?;
    }
    talk(args, secret.map(|(path, _)| path.as_str()), results);
    Ok(())
}

/// A list that can be given back once it was compared.
fn untrusted(results: &[Outcome]) -> anyhow::Result<()> {
    for result in results {
        if let What::Untrusted(fingerprint, name) = &result.what {
            let name = name.as_ref().map(|name| format!(" name={name}")).unwrap_or_default();
            outln!("{} {fingerprint}{name}", result.bmc)?;
        }
    }
    Ok(())
}

fn machine(result: &Outcome) -> String {
    match &result.what {
        What::New(manifest) => manifest.machine.to_string(),
        What::Known { machine, .. } => machine.clone(),
        What::Refused(_) | What::Failed(_) | What::Untrusted(..) => "-".to_owned(),
    }
}

fn line(result: &Outcome) -> String {
    match &result.what {
        What::New(manifest) if manifest.notes.is_empty() => format!("written: {}", manifest.path),
        What::New(manifest) => format!("written: {}; left out: {}", manifest.path, manifest.notes.join("; ")),
        What::Known { place, by, .. } => format!("already there: {place} has the same {by}"),
        What::Refused(why) => format!("not adopted: {why}"),
        What::Failed(why) => format!("not asked: {why}"),
        What::Untrusted(..) => "not trusted: compare the fingerprint below".to_owned(),
    }
}

fn row(args: &Args, result: &Outcome) -> serde_json::Value {
    let bmc = &result.bmc;
    match &result.what {
        What::New(manifest) => {
            let mut row = json!({"bmc": bmc, "result": if args.dry_run { "new" } else { "written" }, "machine": manifest.machine,
                "file": manifest.path, "leftOut": manifest.notes});
            if args.dry_run {
                row["manifest"] = json!(manifest.text);
            }
            row
        }
        What::Known { machine, place, by } => json!({"bmc": bmc, "result": "known", "machine": machine, "file": place, "why": by}),
        What::Refused(why) => json!({"bmc": bmc, "result": "refused", "why": why}),
        What::Failed(why) => json!({"bmc": bmc, "result": "failed", "why": why}),
        What::Untrusted(fingerprint, name) => json!({"bmc": bmc, "result": "untrusted", "fingerprint": fingerprint, "machine": name}),
    }
}

fn talk(args: &Args, secret: Option<&str>, results: &[Outcome]) {
    let count = |is: fn(&What) -> bool| results.iter().filter(|result| is(&result.what)).count();
    let new = count(|what| matches!(what, What::New(_)));
    let untrusted = count(|what| matches!(what, What::Untrusted(..)));
    let counts = [
        (new, if args.dry_run { "new" } else { "adopted" }),
        (count(|what| matches!(what, What::Known { .. })), "already there"),
        (untrusted, "not trusted yet"),
        (count(|what| matches!(what, What::Refused(_))), "not adopted"),
        (count(|what| matches!(what, What::Failed(_))), "not asked"),
    ];
    let counts: Vec<String> = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    errln!("{}: {}.", plural(results.len(), "machine"), counts.join(", "));
    if untrusted > 0 {
        errln!("Nobody was logged in to where no certificate is trusted. Compare each fingerprint with what the BMC's own page or console");
        errln!("shows, and give the list back with --from; or trust a CA with --ca-file, or all that is presented now with --trust-seen.");
    }
    if new > 0 && args.dry_run {
        errln!("Nothing was written.");
    }
    if new > 0 && !args.dry_run {
        if let Some(path) = secret {
            errln!("{path} says where the controller finds the password: change it if that is elsewhere on the controller's host.");
        }
        let folder = args.into.display();
        errln!("Next: read the files, then");
        errln!("  git -C {folder} add --all && git -C {folder} commit --message 'Adopt {}'", plural(new, "machine"));
        errln!("  rackwright plan --repo {folder} --head HEAD");
    }
}
