//! The clock of one program, which a test turns: the real program, by its own system calls, sees time jump or run faster.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::lab::Lab;

pub struct Clock {
    library: PathBuf,
    file: File,
    path: PathBuf,
    version: u64,
    since: i64,
    ahead: i64,
    wall: i64,
    rate: i64,
}

impl Clock {
    /// `None`, with a word, where there is no C compiler.
    pub fn of(lab: &Lab) -> Option<Self> {
        let (library, path) = (lab.path("clock.so"), lab.path("clock"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/loop_lost/clock.c");
        let Ok(made) = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).output() else {
            println!("skipped: a clock that can be turned needs a C compiler (apt-get install gcc)");
            return None;
        };
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        fs::write(&path, [0; 40]).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let mut clock = Self { library, file, path, version: 0, since: monotonic(), ahead: 0, wall: 0, rate: 1 };
        clock.say();
        Some(clock)
    }

    /// What the program's environment needs.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [("LD_PRELOAD", self.library.display().to_string()), ("CLOCK_FILE", self.path.display().to_string())]
    }

    /// The wall clock is set forward, or back.
    pub fn jump(&mut self, days: i64) {
        self.wall += days * 86_400_000_000_000;
        self.say();
    }

    /// So much time passes for the program, quickly.
    pub async fn pass(&mut self, time: Duration, rate: i64) {
        self.run(rate);
        tokio::time::sleep(time / u32::try_from(rate).unwrap()).await;
        self.run(1);
    }

    fn run(&mut self, rate: i64) {
        let now = monotonic();
        self.ahead += (now - self.since) * (self.rate - 1);
        (self.since, self.rate) = (now, rate);
        self.say();
    }

    fn say(&mut self) {
        self.write(0, (self.version + 1) as i64);
        for (place, number) in [self.since, self.ahead, self.wall, self.rate].into_iter().enumerate() {
            self.write(place as u64 + 1, number);
        }
        self.version += 2;
        self.write(0, self.version as i64);
        self.file.flush().unwrap();
    }

    fn write(&self, place: u64, number: i64) {
        self.file.write_all_at(&number.to_ne_bytes(), place * 8).unwrap();
    }
}

fn monotonic() -> i64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec() * 1_000_000_000 + now.tv_nsec()
}
