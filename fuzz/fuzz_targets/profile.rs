//! Profile files: whatever is accepted can be written out and read back as the same profile.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_profiles::Profile;

fuzz_target!(|text: &str| {
    if let Ok(profile) = Profile::from_toml(text, "fuzz") {
        let again = Profile::from_toml(&profile.to_toml(), "fuzz");
        assert_eq!(again.ok(), Some(profile));
    }
});
