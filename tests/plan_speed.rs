//! How long a plan takes over a fleet in which nothing is to be done. Prints; asserts only that nothing is planned.
//! `cargo test --release --test plan_speed -- --nocapture`.
#![allow(clippy::unwrap_used, missing_docs)]

mod plan_world;

use std::time::{Duration, Instant};

use plan_world::*;
use rackwright::{model::*, plan::baseline};

#[test]
fn a_quiet_fleet_is_planned_quickly() {
    for machines in [1_000_u32, 10_000] {
        let mut world = World::new();
        for group in 0..20 {
            let name = RolloutName::new(format!("group-{group:02}")).unwrap();
            let selector = [("group".to_owned(), group.to_string())].into();
            world.fleet.rollouts.insert(
                name.clone(),
                Rollout {
                    name,
                    selector,
                    after: vec![],
                    budgets: Budgets::default(),
                    waves: vec![],
                    soak: SignedDuration::ZERO,
                    windows: vec![],
                    freeze: None,
                    paused: false,
                },
            );
        }
        for number in 0..machines {
            let mut new = machine(&format!("m-{number}"), 0);
            let [_, _, a, b] = number.to_be_bytes();
            new.nics[0].mac = Mac([0x52, 0x54, 0, 0, a, b]);
            new.place.rack = Some((number / 40).to_string());
            new.labels.insert("group".to_owned(), (number % 25).to_string());
            new.install = Some(install("v1", Some("#cloud-config"), 0));
            world.add(new);
        }
        world.history = baseline(&world.fleet, world.now);
        world.with_input(|input| {
            let mut best = (Duration::MAX, Duration::MAX);
            for _ in 0..7 {
                let start = Instant::now();
                let made = rackwright::plan::plan(input);
                let planned = start.elapsed();
                let violations = rackwright::plan::check(&made, input);
                best = (best.0.min(planned), best.1.min(start.elapsed()));
                assert!(made.is_empty());
                assert_eq!(violations, []);
            }
            println!("{machines} quiet machines: plan {:?}, plan and check {:?}", best.0, best.1);
        });
    }
}
