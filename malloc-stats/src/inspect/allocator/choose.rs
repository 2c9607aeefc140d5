//! Which of the allocators found serves `malloc`.

use super::kind::{Contents, Found, Kind};
use super::objects::{Object, Objects};
use super::scope::Scope;
use super::{Detected, Detection, LibcObject, owned};
use crate::inspect::Target;
use crate::mappings::Mapping;
use crate::metric::Metric;

/// Who serves `malloc` in a process with these mappings.
///
/// `rss_of` gives the resident memory of a mapping (`Rss` of `/proc/PID/smaps`), for allocators
/// that cannot be walked; unavailable where that is not wanted.
///
/// This never fails: what could not be found out is `unknown`, with the reason.
#[must_use]
pub fn detect(
    target: &Target,
    mappings: &[Mapping],
    rss_of: &dyn Fn(&Mapping) -> Metric,
) -> Detection {
    let objects = Objects::of(target, mappings);
    let scope = Scope::of(target, &objects);
    Choice::new(&objects, &scope).detection(mappings, rss_of)
}

struct Choice<'a> {
    objects: &'a Objects,
    scope: &'a Scope,
    /// What each object has.
    contents: Vec<Contents>,
    /// The object that serves.
    serving: Option<usize>,
}

impl<'a> Choice<'a> {
    fn new(objects: &'a Objects, scope: &'a Scope) -> Self {
        let all = objects.all.iter().enumerate();
        let contents: Vec<_> = all
            .map(|(at, object)| Contents::of(object, Some(at) == scope.program))
            .collect();
        let mut order = scope.order.iter().copied();
        let serving = order.find(|at| contents[*at].malloc.is_some());
        Self {
            objects,
            scope,
            contents,
            serving,
        }
    }

    fn detection(&self, mappings: &[Mapping], rss_of: &dyn Fn(&Mapping) -> Metric) -> Detection {
        let (mut detected, kind) = self.serving(mappings);
        if !detected.walkable {
            let (rss, what) = owned::resident(kind, mappings, rss_of);
            detected.mappings_rss = rss;
            if !rss.is_unavailable() {
                let why = detected.reason.unwrap_or_default();
                detected.reason = Some(format!("{why}; its resident memory here is {what}"));
            }
        }
        detected.others = self.others();
        Detection {
            detected,
            libcs: self.libcs(),
            notes: self.notes(),
        }
    }

    fn serving(&self, mappings: &[Mapping]) -> (Detected, Kind) {
        let found = self.serving.and_then(|at| Some((at, self.malloc(at)?)));
        let Some((at, found)) = found else {
            let unknown = Detected {
                name: Kind::Unknown.name().to_owned(),
                placement: "library".to_owned(),
                reason: Some(self.nothing_found()),
                ..Detected::default()
            };
            return (unknown, Kind::Unknown);
        };
        let object = &self.objects.all[at];
        let wide = match &object.facts {
            Ok(facts) => facts.wide,
            Err(_) => mappings.iter().any(|m| m.range.end > 1 << 32),
        };
        let reason = match found.kind {
            Kind::Glibc if wide => None,
            Kind::Glibc => Some("its heap is of 32 bits, and only those of 64 are read".to_owned()),
            Kind::Go => Some("Go's runtime allocates by itself, without malloc".to_owned()),
            Kind::Sanitizer => Some(format!(
                "malloc is a sanitizer's, in {}; only glibc's heap can be walked",
                object.path
            )),
            Kind::Unknown if self.is_static(at) => Some(
                "a static program, with neither symbols nor texts of an allocator known here"
                    .to_owned(),
            ),
            Kind::Unknown => Some(format!(
                "malloc is that of {}, which is no allocator known here; where it passes calls on \
                 to another, that one is among the others",
                object.path
            )),
            _ => Some("only glibc's heap can be walked".to_owned()),
        };
        let detected = Detected {
            walkable: reason.is_none(),
            reason,
            ..self.described(at, found.kind, found.version.clone())
        };
        (detected, found.kind)
    }

    fn nothing_found(&self) -> String {
        if self.objects.all.is_empty() {
            return "no program or library is mapped that could have a malloc".to_owned();
        }
        let unread = self.objects.all.iter().find_map(|object| {
            let why = object.facts.as_ref().err()?;
            Some(format!("{} could not be read: {why}", object.path))
        });
        let nothing = "nothing that is mapped and was read defines malloc";
        match unread {
            Some(unread) => format!("{nothing}; {unread}"),
            None => nothing.to_owned(),
        }
    }

    fn others(&self) -> Vec<Detected> {
        let mut others = Vec::new();
        let other = |at: usize, kind, version, reason| Detected {
            reason: Some(reason),
            ..self.described(at, kind, version)
        };
        for (at, contents) in self.contents.iter().enumerate() {
            if let Some(found) = &contents.malloc {
                let version = || found.version.clone();
                if Some(at) != self.serving {
                    others.push(other(
                        at,
                        found.kind,
                        version(),
                        self.passed_over(at, found),
                    ));
                }
                for base in self.objects.all[at].bases.iter().skip(1) {
                    let why = format!(
                        "a further copy at {base:#x}, in a namespace of its own (dlmopen): it \
                         serves what was loaded there"
                    );
                    others.push(other(at, found.kind, version(), why));
                }
            }
            for (kind, why) in &contents.beside {
                others.push(other(at, *kind, None, why.clone()));
            }
        }
        others
    }

    /// Why an object that has a `malloc` does not serve it.
    fn passed_over(&self, at: usize, found: &Found) -> String {
        let serving = self.serving.map(|at| &self.objects.all[at]);
        let by = serving.map_or("", |object| object.path.as_str());
        let kind = self.serving.and_then(|at| self.malloc(at)).map(|f| f.kind);
        if self.scope.order.contains(&at) {
            return match kind {
                Some(Kind::Unknown | Kind::Sanitizer) => {
                    format!("its malloc is shadowed by that of {by}, which may pass calls on to it")
                }
                _ => format!("its malloc is shadowed by that of {by}"),
            };
        }
        let loaded = "it was loaded after the start (dlopen, dlmopen)";
        match found.kind {
            Kind::Glibc | Kind::Musl => {
                format!("{loaded}, as a second C library: it serves what was loaded with it")
            }
            _ => format!("{loaded}: malloc of what was there before is that of {by}"),
        }
    }

    fn libcs(&self) -> Vec<LibcObject> {
        let serving = self.serving.into_iter();
        let rest = (0..self.contents.len()).filter(|at| Some(*at) != self.serving);
        let copies = |at: usize| {
            let object = &self.objects.all[at];
            let glibc = self.malloc(at).filter(|found| found.kind == Kind::Glibc);
            let copy = move |version| {
                object.bases.iter().map(move |base| LibcObject {
                    path: object.path.clone(),
                    device: object.device,
                    inode: object.inode,
                    base: *base,
                    version,
                })
            };
            glibc.map(|found| copy(found.glibc)).into_iter().flatten()
        };
        serving.chain(rest).flat_map(copies).collect()
    }

    fn notes(&self) -> Vec<String> {
        let unread = self
            .objects
            .all
            .iter()
            .enumerate()
            .filter_map(|(at, object)| {
                let why = object.facts.as_ref().err()?;
                let path = &object.path;
                let taken = self.malloc(at).map(|found| found.kind.name());
                match taken {
                    Some(name) => Some(format!(
                        "{path} could not be read ({why}); by its name it is {name}"
                    )),
                    None if self.serving.is_none() || Some(at) == self.scope.program => {
                        Some(format!("{path} could not be read ({why})"))
                    }
                    // Mostly a file that is no library at all.
                    None => None,
                }
            });
        let guessed = self.scope.guessed.map(|at| {
            format!(
                "{} is taken for preloaded by where it is mapped: LD_PRELOAD does not name it (any \
                 more)",
                self.objects.all[at].path
            )
        });
        unread.chain(guessed).collect()
    }

    fn described(&self, at: usize, kind: Kind, version: Option<String>) -> Detected {
        let placement = if Some(at) == self.scope.program {
            "static"
        } else if self.scope.preloaded.contains(&at) {
            "preloaded"
        } else {
            "library"
        };
        Detected {
            name: kind.name().to_owned(),
            version,
            placement: placement.to_owned(),
            object: Some(self.objects.all[at].path.clone()),
            ..Detected::default()
        }
    }

    fn malloc(&self, at: usize) -> Option<&Found> {
        self.contents[at].malloc.as_ref()
    }

    fn is_static(&self, at: usize) -> bool {
        let stands_alone = |object: &Object| {
            let facts = object.facts.as_ref();
            facts.is_ok_and(|f| !f.interpreter && f.needed.is_empty())
        };
        Some(at) == self.scope.program && stands_alone(&self.objects.all[at])
    }
}
