//! Does the profile's allocator serve, and if not, why?

use malloc_stats::inspect::{Detected, Inspection};

use super::Took;
use super::environment::{Environment, Held};
use crate::malloc::Malloc;
use crate::profile::Profile;

/// Puts the setting `allocator`; whether the profile's serves, or may.
pub(super) fn check(
    profile: &Profile,
    seen: &Inspection,
    environment: &Environment<'_>,
    took: &mut Took,
) -> bool {
    let wanted = profile.allocator;
    let serving = &seen.allocator;
    if serving.name == wanted.name() {
        let value = match &serving.version {
            Some(version) => format!("{wanted} {version}"),
            None => wanted.to_string(),
        };
        took.verified("allocator", value);
        return true;
    }
    if serving.name.is_empty() || (serving.name == "unknown" && serving.object.is_none()) {
        let why = seen.heap_absent.as_deref().or(serving.reason.as_deref());
        took.requested("allocator", wanted.name());
        took.unknown.push(format!(
            "which allocator serves could not be told: {}",
            why.unwrap_or("the process shows nothing of it")
        ));
        return true;
    }
    let why = match wanted {
        Malloc::Glibc => instead_of_glibc(serving),
        wanted => instead_of_preload(wanted, serving, environment),
    };
    let why = format!("{} serves, not {wanted}: {why}", serving.name);
    took.refuse("allocator", serving.name.clone(), why);
    false
}

fn instead_of_glibc(serving: &Detected) -> String {
    let object = object(serving);
    match serving.placement.as_str() {
        "preloaded" => format!("{object} was preloaded all the same (see /etc/ld.so.preload)"),
        "static" => format!("it is part of the program, {object}"),
        _ => format!("the program brings {object}"),
    }
}

fn instead_of_preload(wanted: Malloc, serving: &Detected, environment: &Environment<'_>) -> String {
    let mut others = serving.others.iter();
    if let Some(other) = others.find(|other| other.name == wanted.name()) {
        let why = other.reason.as_deref().unwrap_or("it came too late");
        return format!("{} is loaded, and {why}", object(other));
    }
    if serving.placement == "static" {
        return "it is part of the program, and comes before whatever is preloaded".to_owned();
    }
    if serving.name == "musl" {
        return "the program runs on musl, which cannot load what was built for glibc".to_owned();
    }
    match environment.preloads(&format!("lib{wanted}")) {
        Held::Yes => format!(
            "LD_PRELOAD names it, and the loader did not load it: it could not (then it said so on \
             stderr), or the program is privileged (setuid) and {wanted} was ignored"
        ),
        Held::No => "LD_PRELOAD does not name it in the environment the process was started with: \
                     something between cleared it (sudo, env -i, a container)"
            .to_owned(),
        Held::Unknown => {
            "the loader did not load it, and the process has written over its environment"
                .to_owned()
        }
    }
}

fn object(detected: &Detected) -> &str {
    detected.object.as_deref().unwrap_or("an unnamed object")
}
