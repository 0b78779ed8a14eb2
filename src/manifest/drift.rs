//! The Fleet's `drift`.

use super::{
    fault::{At, Fault, path_to},
    raw,
    world::Source,
};
use crate::model::{Damping, DriftPolicies, DriftPolicy, SignedDuration};

/// Longest time over which corrections are counted: the journal is read at each turn, and nobody waits longer than that for a light to go out.
const LONGEST: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What the Fleet states, checked. `Correct` is refused where nothing may, or can, be put right.
pub(crate) fn policies<'a>(source: Source<'a>, stated: &raw::Drift, faults: &mut Vec<(&'a str, Fault)>) -> DriftPolicies {
    let usual = DriftPolicies::default();
    let mut only_shown = |field: &str, stated: Option<DriftPolicy>, why: &str| {
        if stated == Some(DriftPolicy::Correct) {
            let at = At::Value(source.doc.number, path_to!["spec", "drift", field]);
            let fault = Fault::error("not-corrected", at, format!("drift of `{field}` can't be `Correct`: {why}"));
            faults.push((source.file, fault.hint("write `Observe` to see it, or `Alert` to count the machine as Stalled as well")));
        }
        stated.filter(|stated| *stated != DriftPolicy::Correct).unwrap_or(DriftPolicy::Observe)
    };
    let destroys = "that would write a disk, which only a commit may ask for";
    let firmware = only_shown("firmware", stated.firmware, "this version does not change firmware");
    let storage = only_shown("storage", stated.storage, destroys);
    let os_image = only_shown("osImage", stated.os_image, destroys);
    DriftPolicies {
        power: stated.power.unwrap_or(usual.power),
        boot: stated.boot.unwrap_or(usual.boot),
        firmware,
        storage,
        os_image,
        damping: damping(source, stated.damping.as_ref(), faults),
    }
}

fn damping<'a>(source: Source<'a>, stated: Option<&raw::Damping>, faults: &mut Vec<(&'a str, Fault)>) -> Damping {
    let usual = Damping::default();
    let Some(stated) = stated else { return usual };
    let mut fault = |field: &str, message: String, hint: String| {
        let at = At::Value(source.doc.number, path_to!["spec", "drift", "damping", field]);
        faults.push((source.file, Fault::error("bad-damping", at, message).hint(hint)));
    };
    let corrections = stated.corrections.unwrap_or(usual.corrections);
    if !(1..=Damping::MOST).contains(&corrections) {
        let hint = format!("write 1 to {}; to correct nothing, write `Alert` or `Observe` for the class", Damping::MOST);
        fault("corrections", format!("{corrections} corrections can't be counted"), hint);
    }
    let within = stated.within.as_ref().map_or(Some(usual.within), |text| text.parse::<SignedDuration>().ok());
    let within = within.filter(|within| *within >= SignedDuration::from_mins(1) && *within <= LONGEST);
    if within.is_none() {
        let text = stated.within.as_deref().unwrap_or_default();
        fault(
            "within",
            format!("`{text}` is not a time to count corrections in"),
            "write it like `1h` or `90m`: one minute to seven days".to_owned(),
        );
    }
    Damping { corrections: corrections.clamp(1, Damping::MOST), within: within.unwrap_or(usual.within) }
}
