//! What a live screen asks of a cache: done, told in the stream, and answered in a sentence.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::{Builder, Cache, Model};
use plimsoll_events::{
    Answer, Ask, Event, EvictReason, Follow, Heard, Kind, Opened, Point, Publication, Request,
    Sink, Stream, connect,
};
use support::{Folder, MIB};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

const PATIENCE: Duration = Duration::from_secs(30);

struct Screen {
    follow: Follow,
    asked: u64,
    _publication: Publication,
}

impl Screen {
    fn of(cache: &Cache, folder: &Folder) -> Screen {
        let path: PathBuf = folder.path().join("live.sock");
        let publication = cache.publish(Some(path.clone())).unwrap();
        Screen {
            follow: connect(&path).unwrap(),
            asked: 0,
            _publication: publication,
        }
    }

    fn next(&mut self) -> Kind {
        match self.follow.next_within(PATIENCE).unwrap() {
            Heard::Event(event) => event.kind,
            other => panic!("{other:?}"),
        }
    }

    /// Asks, and gives the answer with what the stream told before it.
    fn ask(&mut self, request: Request) -> (Answer, Vec<Kind>) {
        self.asked += 1;
        let id = self.asked;
        self.follow.ask(&Ask { id, request }).unwrap();
        let mut told = Vec::new();
        loop {
            match self.next() {
                Kind::Answer(answer) => {
                    assert_eq!(answer.id, id);
                    return (*answer, told);
                }
                other => told.push(other),
            }
        }
    }

    fn says(&mut self, request: Request) -> String {
        let (answer, _) = self.ask(request);
        assert!(!answer.refused, "{}", answer.said);
        answer.said
    }

    fn refuses(&mut self, request: Request) -> String {
        let (answer, _) = self.ask(request);
        assert!(answer.refused, "{}", answer.said);
        answer.said
    }
}

fn evict(model: &str, tier: Option<&str>) -> Request {
    Request::Evict {
        model: model.to_owned(),
        tier: tier.map(str::to_owned),
    }
}

fn drop_of(model: &str) -> Request {
    Request::Drop {
        model: model.to_owned(),
    }
}

fn budget(tier: &str, bytes: Option<u64>) -> Request {
    Request::Budget {
        tier: tier.to_owned(),
        bytes,
    }
}

fn cache(set: impl FnOnce(Builder) -> Builder) -> Cache {
    set(Cache::builder().ram(64 * MIB)).build().unwrap()
}

#[test]
fn a_model_is_evicted_by_name_and_the_answer_says_what_that_gave() {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 8 * MIB), folder.model("b", MIB));
    let device = Simulated::new(32 * MIB);
    let gpu = device.tier();
    let cache = cache(|builder| builder.device(device, 32 * MIB));
    drop(cache.lease([a.on(gpu)]).unwrap());
    drop(cache.lease([&b]).unwrap());
    let mut screen = Screen::of(&cache, &folder);

    let (answer, told) = screen.ask(evict("a", Some("simulated")));
    assert!(
        answer
            .said
            .starts_with("evicted a from simulated: freed 8.0 MiB"),
        "{}",
        answer.said
    );
    assert!(!answer.gain.is_unavailable());
    let evictions: Vec<_> = told
        .iter()
        .filter_map(|kind| match kind {
            Kind::Evict(evict) => Some((evict.model.as_str(), evict.tier.as_str(), &evict.reason)),
            _ => None,
        })
        .collect();
    assert_eq!(evictions, [("a", "simulated", &EvictReason::Dropped)]);
    assert_eq!(cache.usage_of(gpu).unwrap().resident_models, 0);
    assert_eq!(cache.usage().resident_models, 2, "only there");

    let said = screen.refuses(evict("a", Some("simulated")));
    assert_eq!(said, "a is not in simulated; it is in ram");
    let said = screen.says(evict("a", None));
    assert!(
        said.starts_with("evicted a from ram: freed 8.0 MiB, the system got "),
        "{said}"
    );
    assert_eq!(cache.usage().resident_models, 1);
}

#[test]
fn what_cannot_be_is_refused_with_the_reason_and_nothing_is_done() {
    let folder = Folder::new();
    let names = ["clip-l", "clip-g", "t5", "vae"];
    let models: Vec<Model> = names.iter().map(|name| folder.model(name, MIB)).collect();
    let other = Folder::new();
    let twin = other.model("t5", 2 * MIB);
    let cache = cache(|builder| builder.device(Simulated::new(8 * MIB), 8 * MIB));
    let mut screen = Screen::of(&cache, &folder);
    let said = screen.refuses(evict("clip", None));
    assert_eq!(said, "no model is called clip: none is in any tier");

    drop(cache.lease(models.iter().chain([&twin])).unwrap());
    let leases = [(); 2].map(|()| cache.lease([&models[0]]).unwrap());
    let said = screen.refuses(evict("CLIP-x", None));
    assert_eq!(
        said,
        "no model called CLIP-x is in any tier; there is clip-g, clip-l"
    );
    let said = screen.refuses(drop_of("\u{1b}[2J"));
    assert!(
        said.contains("there are clip-g, clip-l, t5 and 1 more"),
        "{said}"
    );
    assert!(!said.contains('\u{1b}'), "{said:?}");
    let said = screen.refuses(evict("t5", None));
    assert!(said.starts_with("2 models are called t5"), "{said}");
    let said = screen.refuses(evict("clip-l", Some("gpu9")));
    assert_eq!(said, "no tier is called gpu9; there are: ram, simulated");
    let said = screen.refuses(evict("clip-l", None));
    assert_eq!(said, "clip-l stays: ram, leased 2 times");
    let said = screen.refuses(budget("vram", Some(MIB)));
    assert!(said.contains("no tier is called vram"), "{said}");
    drop(leases);
    assert_eq!(cache.usage().resident_models, 5);
}

#[test]
fn a_dropped_model_goes_at_the_end_of_its_leases_and_cannot_be_dropped_twice() {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", MIB), folder.model("b", MIB));
    let cache = cache(|builder| builder);
    let lease = cache.lease([&a]).unwrap();
    drop(cache.lease([&b]).unwrap());
    let mut screen = Screen::of(&cache, &folder);
    let said = screen.says(drop_of("a"));
    assert_eq!(
        said,
        "dropped a; it goes when it is no longer leased: ram, leased once"
    );
    let said = screen.refuses(drop_of("a"));
    assert!(said.starts_with("a was dropped already"), "{said}");
    let said = screen.says(drop_of("b"));
    assert!(
        said.starts_with("dropped b from ram: freed 1.0 MiB"),
        "{said}"
    );
    drop(lease);
    assert_eq!(cache.usage().resident_models, 0);
    let said = screen.refuses(drop_of("a"));
    assert!(said.contains("none is in any tier"), "{said}");
}

#[test]
fn a_budget_is_set_evicts_what_no_longer_fits_and_keeps_the_reserve() {
    let folder = Folder::new();
    let models = ["a", "b", "c"].map(|name| folder.model(name, 4 * MIB));
    let cache = Cache::builder()
        .ram(plimsoll_cache::Budget::fixed(64 * MIB).reserve(8 * MIB))
        .build()
        .unwrap();
    drop(cache.lease(&models).unwrap());
    let pinned = cache.lease([&models[0]]).unwrap();
    let mut screen = Screen::of(&cache, &folder);
    let (answer, told) = screen.ask(budget("ram", Some(9 * MIB)));
    assert_eq!(
        answer.said,
        "the budget of ram is 9.0 MiB now, and was 56.0 MiB"
    );
    let evicted = told
        .iter()
        .filter(|kind| matches!(kind, Kind::Evict(_)))
        .count();
    assert_eq!(evicted, 1);
    let changes = told.iter().filter_map(|kind| match kind {
        Kind::Budget(change) => {
            Some((change.was_bytes, change.budget_bytes, change.cause.as_str()))
        }
        _ => None,
    });
    assert!(changes.eq([(Some(56 * MIB), 9 * MIB, "request")]));
    let ram = &cache.residency().tiers[0];
    assert_eq!((ram.budget_bytes, ram.reserve_bytes), (9 * MIB, 8 * MIB));
    assert_eq!(cache.usage().resident_models, 2);

    let said = screen.says(budget("ram", Some(0)));
    assert!(
        said.contains("more are in use, and go as leases end"),
        "{said}"
    );
    drop(pinned);
    assert_eq!(cache.usage().resident_models, 0);
    screen.says(budget("ram", Some(u64::MAX)));
    assert!(cache.residency().tiers[0].budget_bytes > u64::MAX - 9 * MIB);
    let said = screen.says(budget("ram", None));
    assert!(said.contains("now and follows"), "{said}");
}

#[test]
fn a_trim_is_told_to_all_with_what_it_gained() {
    let folder = Folder::new();
    let cache = cache(|builder| builder);
    let mut screen = Screen::of(&cache, &folder);
    let (answer, told) = screen.ask(Request::Trim);
    assert!(
        !answer.refused && answer.said.contains("the system got"),
        "{}",
        answer.said
    );
    let reclaims: Vec<_> = told
        .iter()
        .filter_map(|kind| match kind {
            Kind::Reclaim(reclaim) => Some((reclaim.action.as_str(), reclaim.gain)),
            _ => None,
        })
        .collect();
    assert_eq!(reclaims, [("trim", answer.gain)]);
}

/// Panics at evictions.
struct Panics;

impl Sink for Panics {
    fn event(&self, event: &Event) {
        assert!(!matches!(event.kind, Kind::Evict(_)), "the sink panics");
    }
}

#[test]
fn what_panics_is_an_answer_and_the_cache_goes_on() {
    let folder = Folder::new();
    let [a, b] = ["a", "b"].map(|name| folder.model(name, MIB));
    let cache = cache(|builder| builder.stream(Stream::new(Panics)));
    drop(cache.lease([&a, &b]).unwrap());
    let mut screen = Screen::of(&cache, &folder);
    let (answer, _) = screen.ask(evict("a", None));
    assert!(
        answer.refused && answer.said.contains("the sink panics"),
        "{}",
        answer.said
    );
    assert_eq!(
        cache.usage().resident_models,
        1,
        "its memory went all the same"
    );
    screen.says(Request::Trim);
    drop(cache.lease([&a]).unwrap());
}

#[test]
fn a_request_that_outlives_the_cache_is_refused() {
    let folder = Folder::new();
    let stream = Stream::silent();
    let cache = cache(|builder| builder.stream(stream.clone()));
    let mut screen = Screen::of(&cache, &folder);
    drop(cache);
    assert_eq!(screen.refuses(Request::Trim), "the cache has ended");
}

#[test]
fn many_screens_ask_while_the_cache_is_leased_from() {
    let folder = Folder::new();
    let models: Vec<Model> = (0..4)
        .map(|n| folder.model(&format!("m{n}"), MIB))
        .collect();
    let cache = cache(|builder| builder.ram(3 * MIB));
    let publication = cache.publish(Some(folder.path().join("s.sock"))).unwrap();
    let path = publication.path();
    std::thread::scope(|scope| {
        for number in 0..4_usize {
            scope.spawn(move || {
                let mut follow = connect(path).unwrap();
                for id in 0..20_u64 {
                    let model = format!("m{}", (number + id as usize) % 4);
                    let request = match id % 4 {
                        0 => Request::Trim,
                        1 => Request::Drop { model },
                        2 => budget("ram", Some((2 + id % 3) * MIB)),
                        _ => evict(&model, None),
                    };
                    follow.ask(&Ask { id, request }).unwrap();
                    while !matches!(follow.next_event().unwrap().unwrap().kind,
                        Kind::Answer(answer) if answer.id == id)
                    {}
                }
            });
        }
        for round in 0..200 {
            let lease = cache.lease([&models[round % 4]]).unwrap();
            support::verify(&lease, &models[round % 4]);
        }
    });
    assert_eq!(cache.clear().leased, []);
    assert_eq!(cache.usage().used_bytes, 0);
}

#[test]
fn a_late_joiner_is_told_how_the_program_began_and_of_models_it_got_to_know_since() {
    let folder = Folder::new();
    let [a, b] = ["a", "b"].map(|name| folder.model(name, MIB));
    let opened = Opened {
        program: "server 1.0".to_owned(),
        profile: "glibc-mmap".to_owned(),
        models: vec![a.seen()],
        ..Opened::default()
    };
    let kept = Arc::new(support::Kept::default());
    let stream = Stream::new(Arc::clone(&kept));
    let cache = cache(|builder| builder.opened(opened).besides(|| 17).stream(stream));
    for _ in 0..2 {
        drop(cache.lease([&a, &b]).unwrap());
        cache.clear();
    }
    let kinds = kept.kinds();
    let news: Vec<usize> = (0..kinds.len())
        .filter(|at| matches!(kinds[*at], Kind::Model(_)))
        .collect();
    assert_eq!(news.len(), 1, "the other was named at the beginning");
    assert_eq!(kinds[news[0]], Kind::Model(Box::new(b.seen())));
    let load = kinds[news[0]..].iter().find_map(|kind| match kind {
        Kind::Load(load) => Some(load.model.as_str()),
        _ => None,
    });
    assert_eq!(load, Some("b"), "before its load");

    drop(cache.lease([&a]).unwrap());
    let mut screen = Screen::of(&cache, &folder);
    let Kind::Opened(opened) = screen.next() else {
        panic!("who it is comes first");
    };
    assert_eq!(
        (opened.program.as_str(), opened.profile.as_str()),
        ("server 1.0", "glibc-mmap")
    );
    assert_eq!(opened.models, [a.seen(), b.seen()]);
    let Kind::Sample(sample) = screen.next() else {
        panic!("then how memory is");
    };
    assert_eq!((sample.point, sample.memory.churn_bytes), (Point::Tick, 17));
    assert_eq!(sample.memory.live_bytes, cache.usage().used_bytes);
    assert!(sample.snapshot.limits.is_some(), "all of it");
    let Kind::Picture(picture) = screen.next() else {
        panic!("then where everything is");
    };
    assert_eq!(picture.policy, "lru");
    let place = &picture.models[0].places[0];
    assert!(place.idle_ms.is_some() && place.score.is_some() && place.reload_us.is_some());
    let lease = cache.lease([&a]).unwrap();
    let place = &cache.residency().models[0].places[0];
    assert_eq!((place.leases, place.idle_ms), (1, None));
    drop(lease);
}
