//! The variables that allocators and loaders read, and their forms.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::knob::Route;
use crate::profile::Profile;

pub(crate) const TUNABLES: &str = "GLIBC_TUNABLES";
pub(crate) const PRELOAD: &str = "LD_PRELOAD";
/// What a jemalloc with plain names reads at start-up.
pub(crate) const JEMALLOC_CONF: &str = "MALLOC_CONF";

const TUNABLE_PREFIX: &str = "glibc.malloc.";

/// glibc's tunables, with those of malloc replaced by ours; `None` where nothing is left.
pub(super) fn merge_tunables<'a>(
    inherited: Option<&OsStr>,
    ours: impl Iterator<Item = (&'static str, &'a str)>,
) -> Option<OsString> {
    let inherited = inherited.map_or(&b""[..], OsStr::as_bytes);
    let kept = inherited
        .split(|byte| *byte == b':')
        .filter(|entry| !entry.is_empty() && !entry.starts_with(TUNABLE_PREFIX.as_bytes()))
        .map(<[u8]>::to_vec);
    let ours = ours.map(|(name, value)| format!("{TUNABLE_PREFIX}{name}={value}").into_bytes());
    let all = kept.chain(ours).collect::<Vec<_>>().join(&b':');
    (!all.is_empty()).then(|| OsString::from_vec(all))
}

/// jemalloc's options, as its manual joins them.
pub(super) fn jemalloc_conf(profile: &Profile) -> Option<String> {
    let options = profile
        .knobs()
        .filter(|(knob, _)| knob.route == Route::Option)
        .map(|(knob, value)| format!("{}:{value}", knob.name))
        .collect::<Vec<_>>()
        .join(",");
    (!options.is_empty()).then_some(options)
}

/// The libraries of a list of preloads, separated as `ld.so(8)` has it.
pub(crate) fn preloads(list: &OsStr) -> impl Iterator<Item = &OsStr> {
    list.as_bytes()
        .split(|byte| matches!(byte, b':' | b' '))
        .filter(|entry| !entry.is_empty())
        .map(OsStr::from_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn jemalloc_options_are_joined_as_its_manual_says() {
        let profile = Profile::find("jemalloc-background-1s").unwrap();
        assert_eq!(
            jemalloc_conf(&profile).as_deref(),
            Some("background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0")
        );
    }

    proptest! {
        #[test]
        fn tunables_of_others_stay_in_order_and_those_of_malloc_are_ours_alone(
            entries in prop::collection::vec(
                "(glibc\\.(malloc|pthread|rtld)\\.[a-z]{1,4}=[0-9]{1,3})?", 0..8),
        ) {
            let inherited = OsString::from(entries.join(":"));
            let ours = [("top_pad", "7")];
            let merged = merge_tunables(Some(&inherited), ours.into_iter()).unwrap();
            let foreign = entries.iter().filter(|entry| !entry.contains("malloc"));
            let mut expected: Vec<_> = foreign.filter(|e| !e.is_empty()).cloned().collect();
            expected.push("glibc.malloc.top_pad=7".to_owned());
            prop_assert_eq!(merged, OsString::from(expected.join(":")));
        }
    }
}
