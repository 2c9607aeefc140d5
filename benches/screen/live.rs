//! The program on a live cache of 50 models, and procps' `top` on the same process.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plimsoll_cache::{Cache, Model};

use crate::Results;
use crate::data::MODELS;
use crate::terminal::Terminal;

const WATCHED: Duration = Duration::from_secs(60);
const PEER: Duration = Duration::from_secs(30);
/// What the beginning may take: the first look, the first frames.
const WARM_UP: Duration = Duration::from_secs(5);

pub fn plimsoll(socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    command.arg("top").arg(socket);
    // Nobody's own config or profile.
    command
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .env("COLORTERM", "truecolor");
    command
}

/// Models of one page each.
fn models(folder: &Path) -> Vec<Model> {
    let make = |index: usize| {
        let path = folder.join(format!("model-{index:02}.safetensors"));
        let header = r#"{"a":{"dtype":"U8","shape":[64],"data_offsets":[0,64]}}     "#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([index as u8; 64]);
        std::fs::write(&path, bytes).unwrap();
        Model::open(&path).unwrap()
    };
    (0..MODELS).map(make).collect()
}

/// A hundred leases a second of what is resident, and one a second that makes another go.
fn serve(cache: &Cache, models: &[Model], stop: &AtomicBool) {
    let mut turn = 0;
    while !stop.load(Ordering::SeqCst) {
        turn += 1;
        let model = match turn % 100 {
            0 => turn / 100 % MODELS,
            other => (turn / 100 + MODELS - other % 30) % MODELS,
        };
        drop(cache.lease([&models[model]]));
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn live(results: &mut Results) {
    let folder = tempfile::tempdir().unwrap();
    let models = models(folder.path());
    let cache = Cache::builder().ram(40 * 4096).build().unwrap();
    let socket = folder.path().join("live.sock");
    let publication = cache.publish(Some(socket.clone())).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&cache, &models, &stop));
        watch(&socket, results);
        stop.store(true, Ordering::SeqCst);
    });
    drop(publication);
}

fn watch(socket: &Path, results: &mut Results) {
    let screen = Terminal::run(&mut plimsoll(socket));
    screen.wait_text("MODELS");
    std::thread::sleep(WARM_UP);
    let (before, slept) = (screen.used(), screen.sleeps());
    std::thread::sleep(WATCHED);
    let (look, rest) = screen.used().since(&before);
    let sleeps = (screen.sleeps() - slept) as f64 / WATCHED.as_secs_f64();
    results.row(
        "live cache of 50 models, share of a core",
        format!("{rest:.2} %"),
        String::new(),
        "0.5 %",
    );
    results.row(
        "  looks into its heap",
        format!("{look:.2} %"),
        String::new(),
        "1 %",
    );
    results.row("  wakeups", format!("{sleeps:.0} /s"), String::new(), "");
    results.row(
        "  anonymous memory",
        format!("{:.1} MiB", screen.anonymous()),
        String::new(),
        "30 MB",
    );
    drop(screen);
    peer(rest, results);
}

/// The same process by `top`, once a second too.
fn peer(ours: f64, results: &mut Results) {
    let pid = std::process::id().to_string();
    let found = Command::new("top").arg("-v").output();
    if found.is_err() {
        eprintln!("no procps top here to compare with");
        return;
    }
    let screen = Terminal::run(Command::new("top").args(["-d", "1", "-p", &pid]));
    screen.wait_text("COMMAND");
    std::thread::sleep(Duration::from_secs(2));
    let before = screen.used();
    std::thread::sleep(PEER);
    let (_, share) = screen.used().since(&before);
    results.row(
        "  procps `top -d 1 -p PID`, share of a core",
        format!("{share:.2} %"),
        format!("{:.2} x ours", share / ours),
        "",
    );
}
