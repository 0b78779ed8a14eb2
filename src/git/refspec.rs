//! Every ref that we name, and the only one that we push to (law 13).

use git2::Oid;

use crate::model::SiteName;

/// The namespace on the remote in which we write.
pub const NOTES: &str = "refs/notes/rackwright/";

/// What a person's clone fetches to see the notes.
pub const NOTES_FETCH: &str = "+refs/notes/rackwright/*:refs/notes/rackwright/*";

/// What a person's clone shows in `git log`.
pub const NOTES_SHOW: &str = "refs/notes/rackwright/*";

/// Keeps the commit in force alive in our clone when the remote's history was rewritten. Never pushed.
pub const IN_FORCE: &str = "refs/rackwright/in-force";

/// The ref of a site's status notes. `None` when Git does not allow the site's name in a ref (`a..b`, `x.lock`).
pub fn status_notes(site: &SiteName) -> Option<String> {
    let name = format!("{NOTES}{site}/status");
    git2::Reference::is_valid_name(&name).then_some(name)
}

/// The only refspec that is ever pushed: a commit to a site's status notes, never by force.
pub fn push_status_notes(commit: Oid, site: &SiteName) -> Option<String> {
    status_notes(site).map(|name| format!("{commit}:{name}"))
}

/// Fetches a site's status notes to the same name in our clone.
pub fn fetch_status_notes(site: &SiteName) -> Option<String> {
    status_notes(site).map(|name| format!("+{name}:{name}"))
}

/// The branch on the remote.
pub fn branch(branch: &str) -> String {
    format!("refs/heads/{branch}")
}

/// Where our clone keeps the remote's branch.
pub fn tracking(branch: &str) -> String {
    format!("refs/remotes/origin/{branch}")
}

/// Fetches the branch. Forced, because refusing a rewritten history is our own decision, with our own message.
pub fn fetch_branch(name: &str) -> String {
    format!("+{}:{}", branch(name), tracking(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn law_13_what_is_pushed_goes_to_our_notes_and_never_by_force() {
        let oid = Oid::from_bytes(&[0xab; 20]).unwrap();
        for site in ["a", "berlin-1", "a.b", "0"] {
            let spec = push_status_notes(oid, &SiteName::new(site).unwrap()).unwrap();
            let (from, to) = spec.split_once(':').unwrap();
            assert_eq!(from, "abababababababababababababababababababab");
            assert_eq!(to, format!("refs/notes/rackwright/{site}/status"));
        }
        for site in ["a..b", "x.lock"] {
            assert_eq!(push_status_notes(oid, &SiteName::new(site).unwrap()), None, "{site}");
        }
    }

    #[test]
    fn law_13_nothing_else_in_this_module_pushes() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/git");
        let mut pushes = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let product = text.split("#[cfg(test)]").next().unwrap();
            // A Vec is pushed one thing; a remote is pushed refspecs and options.
            let calls = product.matches("remote.push(").count();
            if calls > 0 {
                pushes.push((path.file_name().unwrap().to_owned(), calls, product.contains("refspec::push_status_notes(")));
            }
        }
        assert_eq!(pushes, [("notes.rs".into(), 1, true)]);
    }
}
