//! What holds for all tables.

use super::*;
use crate::live::State;
use crate::live::view::draw::{Line, Mark, flow};

struct Numbers(Vec<u32>);

impl List for Numbers {
    type Key = u32;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn key(&self, row: usize) -> Option<u32> {
        self.0.get(row).copied()
    }

    fn find(&self, key: &u32) -> Option<usize> {
        self.0.iter().position(|one| one == key)
    }

    fn cell(&self, row: usize, _: usize, pen: &mut Pen<'_>) {
        pen.write(Role::Text, &self.0[row].to_string());
    }
}

fn drawn(rows: &mut Rows<u32>, list: &Numbers, height: u16) -> String {
    let area = Rect::new(0, 0, 8, height);
    let mut buffer = Buffer::empty(area);
    let state = State::default();
    let mut hits = Vec::new();
    let mut scene = Scene {
        state: &state,
        since: None,
        theme: Theme::plain(),
        now_us: 0,
        focused: true,
        expanded: false,
        filter: "",
        hits: &mut hits,
    };
    let columns = [Column::right("n", 4).sorts()];
    let head = Head {
        columns: &columns,
        sorted: Some((0, true)),
    };
    rows.draw(&mut scene, area, &mut buffer, &head, list);
    let lines = (0..height).map(|y| {
        let line: String = (0..8).map(|x| buffer[(x, y)].symbol()).collect();
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_scrollbar_shows_where_one_is_and_the_ends_are_reached() {
    let list = Numbers((0..40).collect());
    let mut rows = Rows::default();
    assert_eq!(
        drawn(&mut rows, &list, 5),
        "   nv\n>   0  #\n    1  |\n    2  |\n    3  |"
    );
    rows.act(Action::Last, &list);
    assert_eq!(
        drawn(&mut rows, &list, 5),
        "   nv\n   36  |\n   37  |\n   38  |\n>  39  #"
    );
    rows.act(Action::Up, &list);
    assert_eq!(rows.selected(), Some(&38));
}

#[test]
fn rows_that_come_before_do_not_move_the_selection() {
    let mut list = Numbers((0..40).collect());
    let mut rows = Rows::default();
    drawn(&mut rows, &list, 5);
    for _ in 0..7 {
        rows.act(Action::Down, &list);
    }
    drawn(&mut rows, &list, 5);
    assert_eq!(rows.selected(), Some(&7));
    list.0.splice(0..0, 100..130);
    assert!(drawn(&mut rows, &list, 5).contains(">   7"));
    // All gone but one.
    list.0 = vec![3];
    drawn(&mut rows, &list, 5);
    assert_eq!(rows.selected(), Some(&3));
    list.0.clear();
    drawn(&mut rows, &list, 5);
    assert_eq!(rows.selected(), None);
}

#[test]
fn a_bar_never_shows_nothing_as_something_nor_almost_all_as_all() {
    let drawn = |parts: &[(Role, Mark, u64)], total: u64, columns: u16| {
        let area = Rect::new(0, 0, 12, 1);
        let mut buffer = Buffer::empty(area);
        Pen::new(&mut buffer, Theme::plain(), area).bar(columns, parts, total);
        let line: String = (0..12).map(|x| buffer[(x, 0)].symbol()).collect();
        line.trim_end().to_owned()
    };
    let (full, other) = ((Role::Live, Mark::Full), (Role::Live, Mark::Dense));
    assert_eq!(drawn(&[(full.0, full.1, 50)], 100, 10), "#####.....");
    assert_eq!(drawn(&[(full.0, full.1, 1)], 1 << 40, 10), "#.........");
    assert_eq!(drawn(&[(full.0, full.1, 999)], 1000, 10), "#########.");
    assert_eq!(drawn(&[], 1, 4), "....");
    assert_eq!(
        drawn(&[(full.0, full.1, 30), (other.0, other.1, 30)], 100, 10),
        "###===...."
    );
    let huge = (full.0, full.1, u64::MAX);
    assert_eq!(drawn(&[huge, huge], 0, 4), "####");
    assert_eq!(drawn(&[huge], u64::MAX, 400), "############");
}

#[test]
fn sentences_flow_and_nothing_of_them_is_lost() {
    let spans = Line::of(Role::Text, "one two ").and(Role::Bad, "three\x1b four ");
    let spans = spans.text("x".repeat(20));
    let lines: Vec<String> = flow(&spans, 10, 99)
        .into_iter()
        .map(|line| line.0.into_iter().map(|(_, text)| text).collect())
        .collect();
    assert_eq!(
        lines,
        [
            "one two ",
            "three\\u{1b",
            "} four ",
            "xxxxxxxxxx",
            "xxxxxxxxxx"
        ]
    );
    assert_eq!(flow(&spans, 10, 2).len(), 2);
    assert_eq!(flow(&Line::default(), 0, 9).len(), 1);
    assert_eq!(flow(&Line::of(Role::Text, "模型"), 1, 9).len(), 1);
}

#[test]
fn filters_know_no_case() {
    assert!(matches("Llava-13B", "llava-13b"));
    assert!(matches("MODÈLE", "modèle"));
    assert!(matches("anything", ""));
    assert!(!matches("ab", "abc"));
    assert!(!matches("", "a"));
}
