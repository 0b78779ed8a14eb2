//! Windows and freezes.

use jiff::tz::TimeZoneDatabase;

use super::{
    fault::{At, Fault, Path, path_to},
    raw, text,
    world::Source,
};
use crate::model::{Freeze, Timestamp, Weekday, Window};

type Faults<'a> = Vec<(&'a str, Fault)>;

/// The windows that a Fleet or a Rollout states.
pub(crate) fn windows<'a>(source: Source<'a>, stated: &[raw::Window], faults: &mut Faults<'a>) -> Vec<Window> {
    stated.iter().enumerate().map(|(n, stated)| window(source, stated, &path_to!["spec", "windows", n], faults)).collect()
}

fn window<'a>(source: Source<'a>, stated: &raw::Window, base: &Path, faults: &mut Faults<'a>) -> Window {
    let mut fault = |field: &str, code, message: String, hint: String| {
        let at = At::Value(source.doc.number, base.then(field));
        faults.push((source.file, Fault::error(code, at, message).hint(hint)));
    };
    let mut time = |field, text: &str, most| {
        let read = minutes(text).filter(|minutes| *minutes <= most);
        if read.is_none() {
            fault(
                field,
                "bad-time",
                format!("`{text}` is not a time of day"),
                "write hours and minutes, such as `22:00` or `05:30`".to_owned(),
            );
        }
        read
    };
    let (from, to) = (time("from", &stated.from, 1439), time("to", &stated.to, 1440));
    if from.is_some() && from == to {
        let hint = "write `from: \"00:00\"` and `to: \"24:00\"` for a whole day".to_owned();
        fault("to", "bad-window", "the window ends when it begins".to_owned(), hint);
    }
    if stated.days.as_ref().is_some_and(Vec::is_empty) {
        fault(
            "days",
            "bad-window",
            "a window on no day never opens".to_owned(),
            "name days, or take `days` out for all of them".to_owned(),
        );
    }
    let zones = TimeZoneDatabase::bundled();
    if zones.get(&stated.time_zone).is_err() {
        let names: Vec<String> = zones.available().map(|name| name.to_string()).collect();
        let near = text::nearest(&stated.time_zone, names.iter().map(String::as_str));
        let meant =
            near.map_or_else(|| "write a name such as `Europe/Berlin` or `UTC`".to_owned(), |name| format!("did you mean `{name}`?"));
        let message = format!("`{}` is not in the IANA time zone database of this version", stated.time_zone);
        fault("timeZone", "bad-time-zone", message, meant);
    }
    Window {
        days: stated.days.clone().unwrap_or_else(|| Weekday::ALL.to_vec()),
        from: from.unwrap_or_default(),
        to: to.unwrap_or_default(),
        time_zone: stated.time_zone.clone(),
    }
}

/// Minutes after midnight of `22:00`, up to `24:00`.
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse::<u16>().ok())?;
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let whole = hours * 60 + minutes;
    (minutes < 60 && whole <= 1440).then_some(whole)
}

/// The freeze that a Fleet or a Rollout states.
pub(crate) fn freeze<'a>(source: Source<'a>, stated: &Option<raw::Freeze>, faults: &mut Faults<'a>) -> Option<Freeze> {
    let fields = match stated.as_ref()? {
        raw::Freeze::Plain(plain) => return plain.then(Freeze::default),
        raw::Freeze::Stated(fields) => fields,
    };
    let until = fields.until.as_ref().map(|text| text.parse::<Timestamp>());
    if let (Some(Err(_)), Some(text)) = (&until, &fields.until) {
        let at = At::Value(source.doc.number, path_to!["spec", "freeze", "until"]);
        let fault = Fault::error("bad-time", at, format!("`{text}` is not a point in time"));
        faults.push((source.file, fault.hint("write date, time and offset from UTC, such as `2026-12-28T06:00:00+01:00`")));
    }
    Some(Freeze { until: until.and_then(Result::ok), reason: fields.reason.as_ref().map(|reason| reason.0.clone()) })
}
