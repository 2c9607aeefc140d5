//! What an allocator that cannot be walked seems to hold.

use super::kind::Kind;
use crate::mappings::{Backing, Mapping};
use crate::metric::{Grade, Metric};

/// The resident memory of the mappings that it seems to own, and which those are.
pub(super) fn resident(
    kind: Kind,
    mappings: &[Mapping],
    rss_of: &dyn Fn(&Mapping) -> Metric,
) -> (Metric, &'static str) {
    if mappings.is_empty() {
        // Of a kernel thread, or of one that may not be looked at: nothing is known, which is not 0.
        return (Metric::Unavailable, "unknown");
    }
    let sum = |chosen: &dyn Fn(&Mapping) -> bool| {
        mappings
            .iter()
            .filter(|m| m.is_private_anonymous() && chosen(m))
            .map(rss_of)
            .fold(Metric::Exact(0), Metric::plus)
    };
    let begins = kind.mapping_name();
    let is_named = |m: &Mapping| begins.is_some_and(|begins| given_name(m).starts_with(begins));
    if mappings.iter().any(is_named) {
        let what = "the mappings that bear its name, without what it may hold beside them";
        return (sum(&is_named).at_best(Grade::Estimated), what);
    }
    // What bears another name is somebody else's.
    let rest = sum(&|m| given_name(m).is_empty()).at_best(Grade::Upper);
    let what = "every private anonymous mapping but the first thread's stack: an upper bound, with \
                other threads' stacks, the data of libraries and whatever was mapped by hand";
    (rest, what)
}

fn given_name(mapping: &Mapping) -> &str {
    match &mapping.backing {
        Backing::Anonymous(name) => name,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mappings;

    const MAPS: &str = "\
400000-401000 r-xp 00000000 fe:00 8 /bin/program
500000-521000 rw-p 00000000 00:00 0 [heap]
600000-601000 ---p 00000000 00:00 0
601000-701000 rw-p 00000000 00:00 0
800000-900000 rw-p 00000000 00:00 0 [anon: glibc: pthread stack: 7]
a00000-b00000 rw-s 00000000 00:01 9 /dev/zero (deleted)
c00000-d00000 rw-p 00000000 00:00 0 [stack]
";

    fn whole(mapping: &Mapping) -> Metric {
        Metric::Exact(mapping.len())
    }

    #[test]
    fn without_names_everything_anonymous_is_an_upper_bound() {
        let mappings = mappings::parse(MAPS);
        let (rss, what) = resident(Kind::Jemalloc, &mappings, &whole);
        assert_eq!(rss, Metric::Upper(0x21000 + 0x100000));
        assert!(what.contains("upper bound"));
    }

    #[test]
    fn names_tell_more_where_there_are_any() {
        let named = "d00000-d10000 rw-p 00000000 00:00 0 [anon:mimalloc]\n";
        let mappings = mappings::parse(&format!("{MAPS}{named}"));
        let (rss, _) = resident(Kind::Mimalloc, &mappings, &whole);
        assert_eq!(rss, Metric::Estimated(0x10000));
        // Another one's name takes that mapping out.
        let (rss, _) = resident(Kind::Tcmalloc, &mappings, &whole);
        assert_eq!(rss, Metric::Upper(0x21000 + 0x100000));
    }

    #[test]
    fn what_is_not_known_of_one_is_not_known_of_all() {
        let mappings = mappings::parse(MAPS);
        let some = |m: &Mapping| match m.backing {
            Backing::Brk => Metric::Unavailable,
            _ => whole(m),
        };
        assert!(resident(Kind::Musl, &mappings, &some).0.is_unavailable());
        assert!(resident(Kind::Unknown, &[], &whole).0.is_unavailable());
    }
}
