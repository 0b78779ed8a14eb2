//! Which disks are wiped (law 6). It fails closed as [`choose`] does, and more often: there are more disks to be wrong about.

use super::{
    DiskHint, NoChoice, ObservedDisk, Targets,
    choose::{Match, choose, compare, is_another, list},
};

/// The disks that `targets` mean, in order of the list. The agent asks before it wipes, and the boot server before it allows that.
///
/// With hints, each must be exactly one disk, none of them one to keep, as for an install; two that mean the same disk are refused. With
/// all disks, each hint of `keep` must be exactly one disk here: a hint that matches none may be mistyped, and then the disk that it means
/// would be wiped. No disk of which it is not certain that it is none to keep is ever in the answer.
///
/// # Errors
/// [`NoChoice`].
pub fn choose_to_wipe<'a>(disks: &'a [ObservedDisk], targets: &Targets, keep: &[DiskHint]) -> Result<Vec<&'a ObservedDisk>, NoChoice> {
    match targets {
        Targets::Each(hints) => each(disks, hints, keep),
        Targets::All => all(disks, keep),
    }
}

fn each<'a>(disks: &'a [ObservedDisk], hints: &[DiskHint], keep: &[DiskHint]) -> Result<Vec<&'a ObservedDisk>, NoChoice> {
    let mut chosen: Vec<&ObservedDisk> = Vec::new();
    for hint in hints {
        let disk = choose(disks, hint, keep)?;
        if chosen.contains(&disk) {
            return Err(NoChoice::Twice { disk: disk.name.clone(), hint: hint.to_string(), there: list(disks) });
        }
        chosen.push(disk);
    }
    if chosen.is_empty() {
        return Err(NoChoice::NoneMatches { hint: "no hint at all".to_owned(), there: list(disks) });
    }
    chosen.sort_by_key(|disk| disks.iter().position(|other| other == *disk));
    Ok(chosen)
}

fn all<'a>(disks: &'a [ObservedDisk], keep: &[DiskHint]) -> Result<Vec<&'a ObservedDisk>, NoChoice> {
    for kept in keep {
        let count = disks.iter().filter(|disk| compare(kept, disk) == Match::Yes).count();
        if count != 1 {
            return Err(NoChoice::KeepUnclear { count, keep: kept.to_string(), there: list(disks) });
        }
    }
    let mut chosen = Vec::new();
    for disk in disks {
        let mut is_kept = false;
        for kept in keep {
            match compare(kept, disk) {
                Match::No => {}
                Match::Yes => is_kept = true,
                Match::Unknown if is_another(kept, disk, disks) => {}
                Match::Unknown => {
                    let doubt = "does not report enough to tell it from a disk to keep";
                    let (hint, keep) = ("to be wiped with all disks".to_owned(), kept.to_string());
                    return Err(NoChoice::Kept { disk: disk.name.clone(), hint, doubt, keep, there: list(disks) });
                }
            }
        }
        if !is_kept {
            chosen.push(disk);
        }
    }
    if chosen.is_empty() {
        return Err(NoChoice::NoneMatches { hint: "no reason to be kept".to_owned(), there: list(disks) });
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn disk(name: &str, serial: Option<&str>, model: &str) -> ObservedDisk {
        ObservedDisk {
            name: name.to_owned(),
            serial: serial.map(str::to_owned),
            model: Some(model.to_owned()),
            size: Some(1 << 40),
            ..ObservedDisk::default()
        }
    }

    fn serial(text: &str) -> DiskHint {
        DiskHint { serial: Some(text.to_owned()), ..DiskHint::default() }
    }

    fn model(text: &str) -> DiskHint {
        DiskHint { model: Some(text.to_owned()), ..DiskHint::default() }
    }

    fn names(chosen: Result<Vec<&ObservedDisk>, NoChoice>) -> Result<Vec<String>, &'static str> {
        chosen.map(|disks| disks.iter().map(|disk| disk.name.clone()).collect()).map_err(|none| none.code())
    }

    fn three() -> [ObservedDisk; 3] {
        [disk("sda", Some("A"), "SSD"), disk("sdb", Some("B"), "HDD"), disk("sdc", Some("C"), "HDD")]
    }

    #[test]
    fn all_disks_are_all_but_those_to_keep() {
        let disks = three();
        let all = |keep: &[DiskHint]| names(choose_to_wipe(&disks, &Targets::All, keep));
        assert_eq!(all(&[]).unwrap(), ["sda", "sdb", "sdc"]);
        assert_eq!(all(&[serial("B")]).unwrap(), ["sda", "sdc"]);
        assert_eq!(all(&[serial("B"), model("SSD")]).unwrap(), ["sdc"]);
        assert_eq!(all(&[serial("A"), serial("B"), serial("C")]), Err("no-disk-matches"), "nothing is left to wipe");
        assert_eq!(names(choose_to_wipe(&[], &Targets::All, &[])), Err("no-disk-matches"));
    }

    #[test]
    fn with_all_disks_a_keep_that_is_not_one_disk_stops_it() {
        let disks = three();
        let all = |keep: DiskHint| names(choose_to_wipe(&disks, &Targets::All, &[keep]));
        assert_eq!(all(serial("b-mistyped")), Err("keep-unclear"));
        assert_eq!(all(model("HDD")), Err("keep-unclear"), "two");
        assert_eq!(all(DiskHint::default()), Err("keep-unclear"), "it says nothing");
    }

    #[test]
    fn a_disk_that_may_be_one_to_keep_stops_it() {
        let disks = [disk("sda", Some("A"), "SSD"), disk("sdb", None, "HDD")];
        let all = |keep: DiskHint| names(choose_to_wipe(&disks, &Targets::All, &[keep]));
        assert_eq!(all(serial("A")).unwrap(), ["sdb"], "a serial number means one disk, and that is sda");
        let roomy = DiskHint { path: Some("p".to_owned()), ..DiskHint::default() };
        let mut told = disks.clone();
        told[0].path = Some("p".to_owned());
        assert_eq!(names(choose_to_wipe(&told, &Targets::All, &[roomy])), Err("disk-kept"), "sdb may be at that path, too");
    }

    #[test]
    fn each_hint_is_one_disk() {
        let disks = three();
        let each = |hints: &[DiskHint], keep: &[DiskHint]| names(choose_to_wipe(&disks, &Targets::Each(hints.to_vec()), keep));
        assert_eq!(each(&[serial("C"), serial("A")], &[]).unwrap(), ["sda", "sdc"]);
        assert_eq!(each(&[serial("C"), serial("X")], &[]), Err("no-disk-matches"), "not even the one that matches");
        assert_eq!(each(&[serial("A"), model("HDD")], &[]), Err("two-disks-match"));
        assert_eq!(each(&[serial("A"), model("SSD")], &[]), Err("two-hints-one-disk"));
        assert_eq!(each(&[serial("A"), serial("B")], &[serial("B")]), Err("disk-kept"));
        assert_eq!(each(&[], &[]), Err("no-disk-matches"));
    }

    fn hint() -> impl Strategy<Value = DiskHint> {
        let text = || proptest::option::weighted(0.5, prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(str::to_owned));
        (text(), text(), text()).prop_map(|(serial, wwn, path)| DiskHint { serial, wwn, path, ..DiskHint::default() })
    }

    fn disks() -> impl Strategy<Value = Vec<ObservedDisk>> {
        let seen = hint().prop_map(|hint| ObservedDisk { serial: hint.serial, wwn: hint.wwn, path: hint.path, ..ObservedDisk::default() });
        prop::collection::vec(seen, 0..5).prop_map(|disks| {
            let numbered = disks.into_iter().enumerate();
            numbered.map(|(number, disk)| ObservedDisk { name: format!("sd{number}"), ..disk }).collect()
        })
    }

    /// Whether all that the hint states is what the disk reports. It shares nothing with `compare`.
    fn is(hint: &DiskHint, disk: &ObservedDisk) -> bool {
        let fields = [(&hint.serial, &disk.serial), (&hint.wwn, &disk.wwn), (&hint.path, &disk.path)];
        let stated: Vec<_> = fields.into_iter().filter(|(wanted, _)| wanted.is_some()).collect();
        !stated.is_empty() && stated.iter().all(|(wanted, seen)| wanted == seen)
    }

    proptest! {
        #[test]
        fn a_disk_to_keep_is_never_wiped_and_each_hint_is_one(
            disks in disks(),
            targets in prop_oneof![Just(Targets::All), prop::collection::vec(hint(), 0..3).prop_map(Targets::Each)],
            keep in prop::collection::vec(hint(), 0..3),
        ) {
            if let Ok(chosen) = choose_to_wipe(&disks, &targets, &keep) {
                prop_assert!(!chosen.is_empty());
                prop_assert!(chosen.iter().all(|disk| !keep.iter().any(|kept| is(kept, disk))));
                match &targets {
                    Targets::Each(hints) => {
                        prop_assert_eq!(chosen.len(), hints.len());
                        prop_assert!(hints.iter().all(|hint| disks.iter().filter(|disk| is(hint, disk)).count() == 1));
                    }
                    Targets::All => {
                        prop_assert_eq!(chosen.len() + disks.iter().filter(|disk| keep.iter().any(|kept| is(kept, disk))).count(), disks.len());
                        prop_assert!(keep.iter().all(|kept| disks.iter().filter(|disk| is(kept, disk)).count() == 1));
                    }
                }
            }
        }
    }
}
