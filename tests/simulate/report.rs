//! Words for people.

use rackwright::model::Fact;

pub fn fact(fact: &Fact) -> String {
    match fact {
        Fact::Claimed { machine, installed, .. } => {
            format!("{machine} claimed as {}", installed.map_or_else(|| "to be installed".to_owned(), |installed| installed.short()))
        }
        Fact::Released { machine } => format!("{machine} released"),
        Fact::Renamed { from, to } => format!("{from} renamed to {to}"),
        Fact::HardwareChanged { machine, hardware } => format!("{machine} is {}", hardware.join(" ")),
        Fact::Intended { step } => format!("{}: {} intended ({})", step.machine, step.action, step.reason),
        Fact::Ended { machine, outcome, .. } => format!("{machine}: {outcome:?}"),
        Fact::ConfigurationNoted { machine, deferred, .. } => format!("{machine}: configuration noted, deferred {deferred:?}"),
        Fact::Began { attempt, generation, .. } => format!("{attempt} began: {}", generation.short()),
        Fact::Saw { attempt, evidence } => format!("{attempt}: {}", evidence.rung()),
        Fact::Checked { attempt, check, ok, .. } => format!("{attempt}: check {check} {}", if *ok { "passed" } else { "failed" }),
        Fact::Reported { attempt, code, .. } => format!("{attempt} reported {code}"),
        Fact::Concluded { attempt, end } => format!("{attempt}: {end}"),
        Fact::Published { attempt, names, .. } => format!("{attempt} published {names:?}"),
        Fact::ValuesLost { attempt, names, .. } => format!("{attempt} lost {names:?}"),
    }
}
