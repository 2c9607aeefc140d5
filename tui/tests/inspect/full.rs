//! Everything is known.

use malloc_stats::Metric;
use malloc_stats::heap::{Address, Fault, Hint, InForce};
use malloc_stats::inspect::{Severity, Verdict};
use plimsoll_tui::inspect::{MapSize, View, text};
use plimsoll_tui::paint::Paint;

use crate::process::{MIB, file, pin, process};
use crate::{fits, plain, section};

#[test]
fn the_page_begins_with_who_it_is_and_what_follows() {
    let paint = Paint {
        width: 80,
        ..Paint::plain()
    };
    let view = View {
        user: Some("serve"),
        ..View::default()
    };
    let page = text(&paint, &process(), &view);
    assert!(
        page.starts_with(
            "4121 python3 serve.py --port=80\n\
             glibc 2.36, user serve, up 3 h 12 min, 12 threads; looked for 43.2 ms, stopped\n\
             it for 12.3 ms\n\
             \n\
             verdict\n  \
             WARN  free-but-resident: 2.00 GiB is free but resident, 97 % of it would go\n        \
             back by malloc_trim\n        \
             -> run with profile glibc-mmap-128k\n\
             \n\
             headroom\n"
        ),
        "{page}"
    );
}

#[test]
fn severity_is_a_word_before_it_is_a_colour() {
    let mut inspection = process();
    inspection.verdicts = [Severity::Bad, Severity::Note]
        .map(|severity| Verdict {
            lint: "x".into(),
            severity,
            bytes: Metric::Unavailable,
            finding: "y – z".into(),
            remedy: String::new(),
        })
        .to_vec();
    let page = plain(&inspection, 80);
    assert_eq!(
        section(&page, "verdict"),
        "verdict\n  BAD   x: y - z\n  NOTE  x: y - z"
    );
    inspection.verdicts.clear();
    let page = plain(&inspection, 80);
    assert_eq!(
        section(&page, "verdict"),
        "verdict\n  GOOD  nothing to complain of: 2.00 GiB of the heap is free but resident (waste\n        \
         65 %); 1.00 GiB left by high /kubepods/pod7"
    );
}

#[test]
fn every_bound_has_its_bar_and_the_tightest_a_mark() {
    let page = plain(&process(), 80);
    assert_eq!(
        section(&page, "headroom"),
        "\
headroom
   bound                                       used       of    left
>  high /kubepods/pod7  [############### ]   21.00G   22.00G   1.00G
   max /kubepods/pod7   [##############  ]   21.00G   24.00G   3.00G
   host                 [############    ]  195.00G  256.00G  61.00G
  > leaves least: memory.high of cgroup /kubepods/pod7
  cgroup /kubepods/pod7 (version 2)
  page cache that could be dropped, on top: ~4.00 GiB
  KILLS for want of memory: 1 in /kubepods/pod7
  memory pressure of the cgroup: some 4.20 %, full 0.60 % of the last 10 s
  oom_score: 667 of 2000, with +100 by oom_score_adj
  RSS 8.00 GiB: anonymous 6.00 GiB, file 2.00 GiB, shared 0 B; peak ~9.00 GiB
  swap: 0 B of it; the host has none"
    );
}

#[test]
fn a_risen_threshold_is_said_plainly() {
    let page = plain(&process(), 80);
    let settings = section(&page, "settings in force");
    assert!(
        settings.contains("  mmap threshold   31.0 MiB  risen from 128.0 KiB, still moves\n"),
        "{settings}"
    );
    let mut inspection = process();
    inspection.heap.as_mut().unwrap().settings = Some(InForce {
        mmap_threshold: 128 << 10,
        trim_threshold: u64::MAX,
        arena_max: 2,
        hp_pagesize: 2 * MIB,
        ..InForce::default()
    });
    let page = plain(&inspection, 80);
    let settings = section(&page, "settings in force");
    for line in [
        "  mmap threshold  128.0 KiB  fixed\n",
        "  trim threshold      never  fixed\n",
        "  arenas                  2  at most\n",
        "  thread cache         none\n",
        "  huge pages        2.0 MiB  of hugetlbfs (hugetlb=2)",
    ] {
        assert!(settings.contains(line), "{line} is not in {settings}");
    }
}

#[test]
fn arenas_come_with_the_worst_first() {
    let page = plain(&process(), 80);
    assert_eq!(
        section(&page, "arenas: 3"),
        "\
arenas: 3
  arena  system  in use   free  resident  waste  trimmable  pin
      1   3.00G  100.0M  2.90G     2.00G   95 %    ~974.0M  32B@0x7f2acff10000
   main   1.98G  900.0M  1.10G   1000.0M   10 %     ~50.0M  -
      2   1.02G   24.0M  1.00G     24.0M    0 %        ~0B  -"
    );
}

#[test]
fn what_a_trim_returns_and_what_none_does() {
    let page = plain(&process(), 80);
    assert_eq!(
        section(&page, "what could be given back now"),
        "\
what could be given back now
  free, resident         2.00 GiB
  by malloc_trim(0)     ~1.94 GiB  97 % of it
  tops of other arenas   50.0 MiB  no trim returns these
  in thread caches       12.0 MiB  no trim returns these"
    );
}

#[test]
fn pins_say_what_they_seem_to_be() {
    let mut inspection = process();
    let heap = inspection.heap.as_mut().unwrap();
    heap.pins = vec![
        pin(0, Some(Hint::Text("a\tb".into()))),
        pin(
            1,
            Some(Hint::PointsInto("/usr/lib/libfoo.so".into(), Address(0x10))),
        ),
        pin(2, None),
    ];
    heap.pins[2].cached = true;
    let page = plain(&inspection, 100);
    assert_eq!(
        section(&page, "pins"),
        "\
pins: blocks that no automatic shrinking passes
  arena  address         block  keeps  resident  unlocks  seems to be
   main  0x7f2acff10000    32B  3.00G   <=2.20G    2.00G  text \"a\\tb\"
      1  0x7f2acff10000    32B  3.00G   <=2.20G    2.00G  object of libfoo.so+0x10
      2  0x7f2acff10000    32B  3.00G   <=2.20G    2.00G  freed, in a thread's cache (unknown)"
    );
}

#[test]
fn chunks_are_drawn_by_size() {
    let page = plain(&process(), 80);
    assert_eq!(
        section(&page, "chunks by size"),
        "\
chunks by size (# in use, . free)
  from  in use  chunks   free  chunks
   32B   39.1K    1000     0B       0
  1.0M   1.00G     512  3.00G    1024  ######.................."
    );
}

#[test]
fn memory_files_growth_and_gpus_have_their_numbers() {
    let page = plain(&process(), 80);
    let expected = [
        "\
model files: 1
  path                            size  cached        in its RSS
  /models/llava-13b.safetensors  4.00G   3.00G  75 %       1.00G  mapped, open",
        "\
memory by what it is
  class         mappings  virtual  resident  anonymous  swapped
  malloc               3    6.13G     3.06G      3.06G       0B
  stacks               3     6.0M      3.0M       3.0M       0B
  unattributed                                 ~512.0M",
        "\
growth within 30 s
       before  after  a minute
  rss   7.81G  8.00G   +384.0M
  if it goes on so: ~2 min 40 s to memory.high of cgroup /kubepods/pod7 (1.00
    GiB left)",
        "\
VRAM
  device                              used       of    free  this process  share
  0 NVIDIA H..  [########        ]  70.00G  140.00G  70.00G        14.00G   10 %",
        "\
walk
  whole: 5 segments",
    ];
    for expected in expected {
        let heading = expected.lines().next().unwrap();
        assert_eq!(section(&page, heading).trim_end(), expected);
    }
}

#[test]
fn a_walk_that_is_not_whole_says_what_is_missing() {
    let mut inspection = process();
    let torn = &mut inspection.heap.as_mut().unwrap().torn;
    (torn.retried, torn.unresolved, torn.unresolved_bytes) = (2, 1, 64 << 10);
    torn.faults = vec![Fault {
        arena: 1,
        address: Address(0x7f00),
        reason: "its size is 0".into(),
        stable: true,
    }];
    let page = plain(&inspection, 200);
    let walk = section(&page, "walk");
    assert!(walk.contains("NOT whole: 1 of 5 segments"), "{walk}");
    assert!(walk.contains("64.0 KiB are in no count"), "{walk}");
    assert!(
        walk.contains("arena 1, chunk 0x7f00: its size is 0 (the same at every try"),
        "{walk}"
    );
}

#[test]
fn every_width_is_kept_with_and_without_unicode() {
    let mut inspection = process();
    let heap = inspection.heap.as_mut().unwrap();
    heap.pins = vec![pin(1, Some(Hint::Text("x".repeat(500))))];
    inspection
        .files
        .push(file(&format!("/{}", "long/".repeat(100))));
    for width in [60, 72, 80, 100, 120, 200, 300] {
        for unicode in [false, true] {
            let paint = Paint {
                width,
                unicode,
                colour: false,
            };
            let page = text(&paint, &inspection, &View::default());
            fits(&page, width);
            assert_eq!(page.is_ascii(), !unicode, "{page}");
        }
    }
}

#[test]
fn colours_change_no_text() {
    let colour = Paint {
        colour: true,
        ..Paint::plain()
    };
    let page = text(&colour, &process(), &View::default());
    let mut bare = String::new();
    let mut rest = page.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        bare.push_str(before);
        let (code, after) = after.split_once('m').unwrap();
        assert!(code.starts_with('['));
        rest = after;
    }
    bare.push_str(rest);
    assert_eq!(bare, plain(&process(), 100));
    for line in page.lines() {
        assert!(
            !line.contains('\u{1b}') || line.contains("\u{1b}[0m"),
            "{line}"
        );
    }
}

#[test]
fn a_map_of_an_arena_that_is_not_there_says_so() {
    let view = |arena| View {
        map: Some(MapSize {
            columns: 40,
            rows: 8,
        }),
        arena,
        ..View::default()
    };
    let paint = Paint::plain();
    let page = text(&paint, &process(), &view(Some(77)));
    assert_eq!(section(&page, "map"), "map\n  n/a: there is no arena 77");
    // The worst, of which these tests have no coverage.
    let page = text(&paint, &process(), &view(None));
    assert!(section(&page, "map of arena 1").contains("n/a:"), "{page}");
    let mut bare = process();
    bare.heap = Some(malloc_stats::heap::Heap::default());
    let page = text(&paint, &bare, &view(None));
    assert_eq!(section(&page, "map"), "map\n  n/a: it has no arenas");
}
