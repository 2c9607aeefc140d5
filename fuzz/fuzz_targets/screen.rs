//! What a live screen is sent, from a socket or a recording, and the keys that are pressed at it:
//! there is always a frame, which fits, and in which no control character is left.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tui/tests/nonsense/dice.rs"]
mod dice;
#[path = "../../tui/tests/nonsense/lines.rs"]
mod lines;
#[path = "../../tui/tests/nonsense/screen.rs"]
mod screen;
#[path = "../../tui/tests/nonsense/told.rs"]
mod told;

fuzz_target!(|bytes: &[u8]| {
    screen::once(bytes);
});
