//! Processes, a line each.

use malloc_stats::limits::{Bound, Tightest};
use malloc_stats::{Metric, Waste};
use plimsoll_tui::paint::Paint;
use plimsoll_tui::ps::{Row, text};

use crate::fits;
use crate::process::exact;

fn row<'a>(nearest: &'a Tightest, command: &'a str) -> Row<'a> {
    Row {
        pid: 4121,
        user: "serve",
        rss: exact(8192),
        anon: exact(6144),
        swap: Metric::Exact(0),
        allocator: "glibc 2.36",
        waste: Ok(Waste {
            fraction: 0.65,
            bytes: exact(2048),
        }),
        nearest: Some(nearest),
        vram: exact(14 * 1024),
        command,
    }
}

fn nearest(path: &str) -> Tightest {
    Tightest {
        bound: Bound::CgroupMax(path.into()),
        headroom: Metric::Upper(3 << 30),
    }
}

fn page(rows: &[Row<'_>], width: usize) -> String {
    let paint = Paint {
        width,
        ..Paint::plain()
    };
    text(&paint, rows)
}

#[test]
fn what_is_known_is_shown_and_what_is_not_has_a_word() {
    let nearest = nearest("/pod7");
    let unread = Row {
        pid: 7,
        user: "999",
        rss: exact(1),
        anon: Metric::Unavailable,
        swap: Metric::Unavailable,
        allocator: "",
        waste: Err("perm"),
        nearest: None,
        vram: Metric::Unavailable,
        command: "secret",
    };
    let rows = [row(&nearest, "python3 serve.py"), unread];
    assert_eq!(
        page(&rows, 120),
        "\x20PID  USER     RSS   ANON  SWAP  ALLOCATOR        WASTE     LEFT  NEAREST LIMIT    VRAM  COMMAND
4121  serve  8.00G  6.00G    0B  glibc 2.36  2.00G 65 %  <=3.00G  max /pod7      14.00G  python3 serve.py
   7  999     1.0M    n/a   n/a  n/a               perm      n/a                    n/a  secret
"
    );
}

#[test]
fn narrow_pages_name_the_columns_they_leave_out() {
    let nearest = nearest("/kubepods/besteffort/pod7f1c2a/main");
    let command = "x".repeat(500);
    let rows = [row(&nearest, &command)];
    let page = |width| page(&rows, width);
    for width in [60, 80, 100, 140, 200] {
        fits(&page(width), width);
    }
    assert!(page(60).contains("\nno room for: "), "{}", page(60));
    assert!(!page(200).contains("no room"), "{}", page(200));
    for width in [60, 80] {
        let heading = page(width).lines().next().unwrap().to_owned();
        for name in ["PID", "RSS", "WASTE", "LEFT", "COMMAND"] {
            assert!(heading.contains(name), "{heading}");
        }
    }
}

#[test]
fn strangers_cannot_move_the_cursor() {
    let nearest = nearest("/a\u{1b}[2J");
    let row = Row {
        user: "\u{1b}]0;x\u{7}",
        allocator: "\u{202e}cba",
        waste: Err("\r"),
        ..row(&nearest, "a\nb\u{1b}[31m模")
    };
    let page = page(&[row], 160);
    assert_eq!(page.lines().count(), 2, "{page}");
    let strays = |c: &char| (c.is_control() && *c != '\n') || *c == '\u{202e}';
    assert_eq!(page.chars().find(strays), None, "{page}");
}

#[test]
fn no_processes_are_a_sentence() {
    assert_eq!(page(&[], 80), "no processes\n");
}
