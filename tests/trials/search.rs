//! `compare --search`: a grid of values, and the winner as a profile.

use crate::world::{World, python};

/// A program that keeps 30 MiB resident by glibc's rising threshold, and next to nothing by a low
/// one that stays: between blocks of 600 KiB that are freed, small ones survive.
const PINNED: &str = r"
import os, socket
marks = socket.socket(socket.AF_UNIX)
marks.connect(os.environ['PLIMSOLL_MARKS'])
def tell(word):
    marks.sendall(word + b'\n')
    marks.recv(16)
tell(b'baseline')
kept = []
for _ in range(2):
    blocks = []
    for _ in range(50):
        blocks.append(bytearray(b'w') * 600_000)
        kept.append(bytearray(2000))
    del blocks
tell(b'dropped')
";

#[test]
fn the_winner_is_written_and_serves_as_a_profile() {
    let Some(python) = python() else { return };
    let world = World::new();
    world.write("pinned.py", PINNED);
    let command = [python.as_str(), "pinned.py"];
    // What it costs in time is not the matter here.
    let line = "compare --search mmap_threshold --write tuned.toml --svg search.svg --price 1000% \
                --profile glibc-default";
    world
        .run(line, &command)
        .ends(0)
        .tells(&["mmap_threshold", "glibc-default", "tuned.toml"]);
    let profile = world.read("tuned.toml");
    assert!(profile.contains("mmap_threshold"), "{profile}");
    assert!(profile.contains(r#"name = "tuned""#), "{profile}");
    assert!(world.read("search.svg").contains("</svg>"));
    let line = "compare --profile glibc-default --profile ./tuned.toml -n 1 --json";
    let json = world.run(line, &command).ends(0).json();
    assert_eq!(json["profiles"][1]["name"], "tuned");
    // It is there now, and is not written over.
    let line = "compare --search mmap_threshold --write tuned.toml";
    world.run(line, &command).ends(2).tells(&["tuned.toml"]);
    assert_eq!(world.read("tuned.toml"), profile);
}
