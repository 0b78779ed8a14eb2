//! Maintenance windows: what the wall clock of the window's own time zone shows decides.
//!
//! An hour that the clock skips in spring is in no window, and one that it shows twice in autumn is in it both times: a window over the
//! change is an hour shorter or longer, and never at another time than it says. The time zone database is built in, so two controllers
//! of one release agree.

use jiff::{
    ToSpan,
    civil::{Date, DateTime},
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};

use crate::model::{Held, Timestamp, Weekday, Window};

/// How far ahead the next opening is looked for, in days: a weekly window whose hour is skipped opens a week later.
const HORIZON: i64 = 15;

/// What stands against beginning at `now`, if no window is open. No window at all is always open.
pub(super) fn held(windows: &[Window], scope: &str, now: Timestamp) -> Option<Held> {
    // A zone that the database does not have (the manifest refuses it) makes a window that never opens.
    let known: Vec<(&Window, TimeZone)> = windows.iter().filter_map(|window| Some((window, zone(window)?))).collect();
    if windows.is_empty() || known.iter().any(|(window, zone)| is_open(window, zone, now)) {
        return None;
    }
    let next = known.iter().filter_map(|(window, zone)| Some((next(window, zone, now)?, *window, zone))).min_by_key(|(at, _, _)| *at);
    let local = next.as_ref().map(|(at, window, zone)| format!("{} {}", zone.to_datetime(*at).strftime("%a %H:%M"), window.time_zone));
    Some(Held::Window { scope: scope.to_owned(), opens: next.map(|(at, _, _)| at), local: local.unwrap_or_default() })
}

fn zone(window: &Window) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(&window.time_zone).ok()
}

fn is_open(window: &Window, zone: &TimeZone, at: Timestamp) -> bool {
    let local = zone.to_datetime(at);
    let minute = local.hour() as u16 * 60 + local.minute() as u16;
    let begins = |date: Date| window.days.contains(&Weekday::ALL[date.weekday().to_monday_zero_offset() as usize]);
    let (today, yesterday) = (begins(local.date()), local.date().yesterday().is_ok_and(begins));
    if window.from < window.to {
        today && (window.from..window.to).contains(&minute)
    } else {
        (today && minute >= window.from) || (yesterday && minute < window.to)
    }
}

/// When it opens after `now`: at its hour of some day, or when the clock jumps over that hour.
fn next(window: &Window, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
    let end = now.checked_add((HORIZON * 24).hours()).ok()?;
    let mut moments: Vec<Timestamp> = zone.following(now).map(|change| change.timestamp()).take_while(|at| *at < end).take(8).collect();
    let mut date = zone.to_datetime(now).date();
    for _ in 0..=HORIZON {
        moments.extend(instants(zone, date.at((window.from / 60) as i8, (window.from % 60) as i8, 0, 0)));
        date = date.tomorrow().ok()?;
    }
    moments.sort_unstable();
    moments.into_iter().find(|at| *at > now && is_open(window, zone, *at))
}

/// All instants at which the clock shows this time: none, one or two. A time that is skipped gives two beside it, which does no harm.
fn instants(zone: &TimeZone, local: DateTime) -> Vec<Timestamp> {
    let offsets = match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => vec![offset],
        AmbiguousOffset::Gap { before, after } | AmbiguousOffset::Fold { before, after } => vec![before, after],
    };
    offsets.into_iter().filter_map(|offset| offset.to_timestamp(local).ok()).collect()
}
