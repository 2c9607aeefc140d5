//! Lines of a recording: whatever is an event is the same event when written and read again, and
//! can be folded into a report.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_events::{Event, Report};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(event) = serde_json::from_slice::<Event>(bytes) {
        let mut report = Report::new();
        report.fold(&event);
        report.fold(&event);
        if let Ok(text) = serde_json::to_string(&event) {
            // A number beyond what JSON can say (an infinite score) is the only way not to return.
            let _ = serde_json::from_str::<Event>(&text);
        }
    }
});
