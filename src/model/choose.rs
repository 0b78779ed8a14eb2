//! Which disk is written (law 6): exactly one matches the stated hint, and it is surely none that must be kept.

use super::{DiskHint, ObservedDisk};

/// Why no disk was chosen, with the list of what is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoChoice {
    /// No disk is what the hint says.
    #[error("no disk has {hint}; there is {there}")]
    NoneMatches {
        /// The hint.
        hint: String,
        /// The disks.
        there: String,
    },
    /// More than one disk is.
    #[error("{count} disks have {hint}, so none was chosen; there is {there}")]
    SeveralMatch {
        /// How many.
        count: usize,
        /// The hint.
        hint: String,
        /// The disks.
        there: String,
    },
    /// The one that is, is or may be one to keep.
    #[error("{disk} has {hint}, but {doubt} ({keep}); there is {there}")]
    Kept {
        /// Its name.
        disk: String,
        /// The hint.
        hint: String,
        /// What is known of it.
        doubt: &'static str,
        /// The hint of the disk to keep.
        keep: String,
        /// The disks.
        there: String,
    },
    /// Two hints mean one disk.
    #[error("{disk} has {hint}, and an earlier hint means it, too; there is {there}")]
    Twice {
        /// Its name.
        disk: String,
        /// The later hint.
        hint: String,
        /// The disks.
        there: String,
    },
    /// All disks are meant but one to keep, and which one that is, is not clear.
    #[error("{count} disks are the one to keep ({keep}), so none was chosen; there is {there}")]
    KeepUnclear {
        /// How many match.
        count: usize,
        /// The hint of the disk to keep.
        keep: String,
        /// The disks.
        there: String,
    },
}

impl NoChoice {
    /// Its stable name, as agents report it and journals keep it.
    pub fn code(&self) -> &'static str {
        match self {
            NoChoice::NoneMatches { .. } => "no-disk-matches",
            NoChoice::SeveralMatch { .. } => "two-disks-match",
            NoChoice::Kept { .. } => "disk-kept",
            NoChoice::Twice { .. } => "two-hints-one-disk",
            NoChoice::KeepUnclear { .. } => "keep-unclear",
        }
    }
}

/// The one disk that `system` means. The agent asks before it writes, and the boot server before it allows that.
///
/// Fails closed: a hint that states nothing matches nothing; a field that a disk does not report does not match; and a disk that
/// *may* be one of `keep`, because it does not report the field by which that one is known, is refused unless another disk
/// here is that one for sure (law 2).
///
/// # Errors
/// [`NoChoice`].
pub fn choose<'a>(disks: &'a [ObservedDisk], system: &DiskHint, keep: &[DiskHint]) -> Result<&'a ObservedDisk, NoChoice> {
    let matching: Vec<&ObservedDisk> = disks.iter().filter(|disk| compare(system, disk) == Match::Yes).collect();
    let (hint, there) = (system.to_string(), list(disks));
    let disk = match matching[..] {
        [] => return Err(NoChoice::NoneMatches { hint, there }),
        [disk] => disk,
        [..] => return Err(NoChoice::SeveralMatch { count: matching.len(), hint, there }),
    };
    for kept in keep {
        let doubt = match compare(kept, disk) {
            Match::No => continue,
            Match::Yes => "is a disk to keep",
            Match::Unknown if is_another(kept, disk, disks) => continue,
            Match::Unknown => "does not report enough to tell it from a disk to keep",
        };
        return Err(NoChoice::Kept { disk: disk.name.clone(), hint, doubt, keep: kept.to_string(), there });
    }
    Ok(disk)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    Yes,
    No,
    Unknown,
}

/// Which of these disks surely are the one that `hint` means, if the list can tell. A list from a BMC lacks much: of a hint that names no
/// one disk, and of disks that do not say who they are, nothing follows.
pub fn surely<'a>(hint: &DiskHint, disks: &'a [ObservedDisk]) -> Option<Vec<&'a ObservedDisk>> {
    let found: Vec<&ObservedDisk> = disks.iter().filter(|disk| compare(hint, disk) == Match::Yes).collect();
    let names_one = hint.serial.is_some() || hint.wwn.is_some();
    let may_be = || disks.iter().any(|disk| compare(hint, disk) == Match::Unknown);
    // None at all is known only where each disk says enough of itself.
    (!found.is_empty() || (names_one && !disks.is_empty() && !may_be())).then_some(found)
}

/// Whether a disk other than `disk` is surely the one that `hint` means: hints with a serial number or a WWN mean one disk.
pub(super) fn is_another(hint: &DiskHint, disk: &ObservedDisk, disks: &[ObservedDisk]) -> bool {
    let names_one = hint.serial.is_some() || hint.wwn.is_some();
    names_one && disks.iter().any(|other| other != disk && compare(hint, other) == Match::Yes)
}

pub(super) fn compare(hint: &DiskHint, disk: &ObservedDisk) -> Match {
    fn field<T, S: ?Sized>(wanted: Option<&T>, seen: Option<&S>, same: impl Fn(&T, &S) -> bool) -> Option<Match> {
        let wanted = wanted?;
        Some(match seen {
            None => Match::Unknown,
            Some(seen) if same(wanted, seen) => Match::Yes,
            Some(_) => Match::No,
        })
    }
    let known = |text: &'_ Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let fields = [
        field(hint.serial.as_ref(), known(&disk.serial).as_ref(), |a, b| a.trim().eq_ignore_ascii_case(b.trim())),
        field(hint.wwn.as_ref(), known(&disk.wwn).as_ref(), |a, b| bare_wwn(a) == bare_wwn(b)),
        field(hint.model.as_ref(), known(&disk.model).as_ref(), |a, b| !a.trim().is_empty() && b.contains(a.trim())),
        field(hint.path.as_ref(), known(&disk.path).as_ref(), |a, b| a == b),
        field(hint.min_size.as_ref(), disk.size.as_ref(), |least, size| size >= least),
        field(hint.max_size.as_ref(), disk.size.as_ref(), |most, size| size <= most),
    ];
    let stated: Vec<Match> = fields.into_iter().flatten().collect();
    if stated.is_empty() || stated.contains(&Match::No) {
        Match::No
    } else if stated.contains(&Match::Unknown) {
        Match::Unknown
    } else {
        Match::Yes
    }
}

/// Kernel, BMCs and labels write the same name with different prefixes.
fn bare_wwn(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    let bare = ["0x", "naa.", "eui.", "nvme."].iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(&text);
    bare.to_owned()
}

/// Most disks that are listed: a line for people, which goes into the journal, must not hold a storage node's thousand.
const LISTED: usize = 24;

/// The disks as one line for people.
pub(super) fn list(disks: &[ObservedDisk]) -> String {
    let one = |disk: &ObservedDisk| {
        let texts = [("serial", &disk.serial), ("wwn", &disk.wwn), ("model", &disk.model), ("path", &disk.path)];
        let mut text = disk.name.clone();
        let parts = texts.iter().filter_map(|(key, value)| value.as_ref().map(|value| format!("{key} {}", value.trim())));
        let parts: Vec<String> = parts.chain(disk.size.map(|size| format!("{size} bytes"))).collect();
        if !parts.is_empty() {
            text.push_str(&format!(" ({})", parts.join(", ")));
        }
        text
    };
    let more = disks.len().saturating_sub(LISTED);
    let more = (more > 0).then(|| format!("{more} more"));
    let texts: Vec<String> = disks.iter().take(LISTED).map(one).chain(more).collect();
    if texts.is_empty() { "no disk at all".to_owned() } else { texts.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, serial: &str, wwn: Option<&str>) -> ObservedDisk {
        ObservedDisk {
            name: name.to_owned(),
            serial: Some(serial.to_owned()),
            wwn: wwn.map(str::to_owned),
            model: Some("SAMSUNG MZ7L3960".to_owned()),
            path: Some(format!("pci-0000:00:1f.2-{name}")),
            size: Some(960_197_124_096),
        }
    }

    fn serial(text: &str) -> DiskHint {
        DiskHint { serial: Some(text.to_owned()), ..DiskHint::default() }
    }

    fn wwn(text: &str) -> DiskHint {
        DiskHint { wwn: Some(text.to_owned()), ..DiskHint::default() }
    }

    #[test]
    fn one_match_is_chosen_whatever_the_spelling() {
        let disks = [disk("sda", " s5gxnx0t ", Some("naa.5002538E00A1B2C3")), disk("sdb", "S5GXNX0U", None)];
        assert_eq!(choose(&disks, &serial("S5GXNX0T"), &[]).unwrap().name, "sda");
        assert_eq!(choose(&disks, &wwn("0x5002538e00a1b2c3"), &[serial("S5GXNX0U")]).unwrap().name, "sda");
    }

    #[test]
    fn none_two_and_nothing_stated_are_refused_with_the_list() {
        let disks = [disk("sda", "A", None), disk("sdb", "B", None)];
        let model = DiskHint { model: Some("MZ7L3960".to_owned()), ..DiskHint::default() };
        let none = choose(&disks, &serial("C"), &[]).unwrap_err();
        assert_eq!(none.code(), "no-disk-matches");
        let text = none.to_string();
        assert!(text.contains("sda (serial A") && text.contains("sdb (serial B"), "{text}");
        assert_eq!(choose(&disks, &model, &[]).unwrap_err().code(), "two-disks-match");
        assert_eq!(choose(&disks, &model, &[serial("B")]).unwrap_err().code(), "two-disks-match", "keep is not a filter");
        assert_eq!(choose(&disks, &DiskHint::default(), &[]).unwrap_err().code(), "no-disk-matches");
        assert_eq!(choose(&[], &serial("A"), &[]).unwrap_err().to_string(), "no disk has serial A; there is no disk at all");
    }

    #[test]
    fn of_many_disks_some_are_listed() {
        let disks: Vec<_> = (0..848).map(|number| disk(&format!("sd{number}"), "A", None)).collect();
        let text = choose(&disks, &serial("C"), &[]).unwrap_err().to_string();
        assert!(text.contains("sd23 (serial A") && !text.contains("sd24") && text.ends_with("; 824 more"), "{text}");
    }

    #[test]
    fn a_disk_to_keep_is_never_chosen() {
        let disks = [disk("sda", "A", Some("0x1")), disk("sdb", "B", None)];
        assert_eq!(choose(&disks, &serial("A"), &[wwn("1")]).unwrap_err().code(), "disk-kept");
    }

    #[test]
    fn a_disk_that_may_be_the_one_to_keep_is_refused() {
        let disks = [disk("sda", "A", Some("0x1")), disk("sdb", "B", None)];
        assert_eq!(choose(&disks, &serial("B"), &[wwn("2")]).unwrap_err().code(), "disk-kept", "sdb has no WWN: it may be 2");
        assert_eq!(choose(&disks, &serial("B"), &[wwn("1")]).unwrap().name, "sdb", "sda is 1 for sure");
    }

    #[test]
    fn a_field_that_is_not_reported_does_not_match() {
        let blank = ObservedDisk { name: "vda".to_owned(), serial: Some("  ".to_owned()), ..ObservedDisk::default() };
        for hint in [serial(""), serial("  "), wwn("1"), DiskHint { min_size: Some(0), ..DiskHint::default() }] {
            assert_eq!(choose(std::slice::from_ref(&blank), &hint, &[]).unwrap_err().code(), "no-disk-matches", "{hint}");
        }
    }

    #[test]
    fn every_stated_field_must_match() {
        let disks = [disk("sda", "A", None)];
        let hint = DiskHint { max_size: Some(1000), ..serial("A") };
        assert_eq!(choose(&disks, &hint, &[]).unwrap_err().code(), "no-disk-matches");
        let hint = DiskHint { min_size: Some(960_197_124_096), max_size: Some(960_197_124_096), ..serial("A") };
        assert!(choose(&disks, &hint, &[]).is_ok());
    }
}
