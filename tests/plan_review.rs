//! The Markdown that a reviewer reads: it fits, says the worst first, and what others wrote stays text.
#![allow(clippy::unwrap_used, missing_docs)]

mod plan_world;

use std::sync::Arc;

use plan_world::*;
use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser, Tag};
use rackwright::{
    model::*,
    plan::{LONGEST, plan, render_markdown},
};

/// A claimed fleet, of which a commit reinstalls all.
fn reinstalled(machines: u16) -> World {
    let mut world = World::new();
    for number in 0..machines {
        let [high, low] = number.to_be_bytes();
        let mut machine = Machine { install: Some(install("v1", None, 0)), ..machine(&format!("web-{number:04}"), low) };
        machine.nics[0].mac = Mac([0x52, 0x54, 0, 0, high, low]);
        machine.nics[0].address = Some([10, 0, high, low].into());
        machine.place.rack = Some(format!("r{}", number / 40));
        world.add(machine);
    }
    world.turn(false);
    world.commit("Move the web servers to v2");
    let v2 = install("v2", None, 0);
    for machine in world.fleet.machines.values_mut() {
        Arc::make_mut(machine).install = Some(v2.clone());
    }
    world
}

fn markdown(world: &World) -> String {
    world.with_input(|input| render_markdown(&plan(input)))
}

#[test]
fn three_thousand_machines_fit_and_the_summary_fits_a_phone() {
    let text = markdown(&reinstalled(3000));
    assert!(text.chars().count() <= LONGEST, "{}", text.chars().count());
    let (summary, folded) = text.split_once("<details>").unwrap();
    assert!(summary.lines().count() <= 40 && summary.chars().count() <= 3000, "{summary}");
    assert!(summary.contains("3000 machines written over"), "{summary}");
    assert!(summary.contains("maxDestructive"), "the law's refusal is not folded: {summary}");
    let listed = folded.lines().filter(|line| line.starts_with("| **REIMAGE**")).count();
    assert!(listed > 100 && folded.contains(&format!("{} more do not fit here", 3000 - listed)), "{listed}");
}

#[test]
fn a_few_machines_are_all_listed() {
    let text = markdown(&reinstalled(3));
    assert_eq!(text.matches("| **REIMAGE** | `web-").count(), 3, "{text}");
    assert!(text.contains("machines/web-0002.yaml:1") && !text.contains("do not fit"), "{text}");
    assert!(text.contains("> [!CAUTION]\n> 3 machines written over"), "{text}");
    assert!(text.contains("| rack r0 | 3 of 3 | 0 | no limit of its own |"), "{text}");
}

/// All that a page would do with the text.
fn rendered(markdown: &str) -> (String, Vec<String>) {
    let (mut text, mut markup) = (String::new(), Vec::new());
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_GFM) {
        match event {
            Event::Text(said) | Event::Code(said) => text += &said,
            Event::Html(html) | Event::InlineHtml(html)
                if ["<br>", "</details>"].contains(&html.trim()) || html.starts_with("<details>") => {}
            Event::Start(Tag::Link { .. } | Tag::Image { .. } | Tag::Emphasis | Tag::Strikethrough)
            | Event::Html(_)
            | Event::InlineHtml(_) => {
                markup.push(format!("{event:?}"));
            }
            _ => {}
        }
    }
    (text.replace('\u{200b}', ""), markup)
}

/// What a forge makes of a finished page: mentions and references. A zero-width space keeps these apart.
fn refers(markdown: &str) -> bool {
    let spaced: Vec<char> = markdown.replace("&#8203;", "\u{200b}").chars().collect();
    spaced.windows(2).any(|pair| "@#!".contains(pair[0]) && pair[1].is_ascii_alphanumeric())
}

#[test]
fn what_a_commit_says_is_text() {
    let mut world = reinstalled(1);
    let hostile = [
        "[click](https://evil.example)",
        "![x](http://evil.example/x.png)",
        "<img src=x>",
        "@everyone see #1 and !2",
        "a | b | c",
        "`code` **bold** ~~gone~~ _it_",
        "https://evil.example www.evil.example a@b.example",
        "</details> <!-- ",
        "\\[x](y)",
        "| **REIMAGE** | nobody |",
        "&lt;script&gt; &amp;",
    ];
    for subject in hostile {
        world.commit.subject = subject.to_owned();
        let page = markdown(&world);
        let (text, markup) = rendered(&page);
        assert_eq!(markup, Vec::<String>::new(), "{subject}");
        assert!(text.contains(subject.trim()), "{subject}: {text}");
        assert!(!refers(page.lines().next().unwrap()), "{page}");
        assert_eq!(page.matches("<details>").count(), 1);
    }
}

proptest! {
    #[test]
    fn whatever_a_bmc_says_stays_text_in_its_cell(serial in "[ -~\u{a0}-\u{ff}\n\t|]{0,80}") {
        let mut world = reinstalled(2);
        world.fleet.machines.values_mut().for_each(|machine| Arc::make_mut(machine).power = PowerIntent::On);
        world.iron.get_mut(&name("web-0001")).unwrap().serial = Some(serial.clone());
        let page = markdown(&world);
        let (_, markup) = rendered(&page);
        prop_assert_eq!(markup, Vec::<String>::new(), "{}", page);
        prop_assert!(!refers(&page.replace("&#8203;", "\u{200b}").replace("[!CAUTION]", "")), "{}", page);
        let columns = |line: &str| line.replace("\\\\", "").replace("\\|", "").matches('|').count();
        let rows = page.split("<details>").nth(1).unwrap().lines().filter(|line| line.starts_with('|'));
        prop_assert!(rows.clone().count() == 4 && rows.clone().all(|row| columns(row) == 5), "{}", page);
    }
}
