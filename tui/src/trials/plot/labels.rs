//! Names beside points, none over another.

/// A rectangle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rectangle {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Rectangle {
    pub(super) fn around((x, y): (f64, f64), radius: f64) -> Rectangle {
        Rectangle {
            x: x - radius,
            y: y - radius,
            width: 2.0 * radius,
            height: 2.0 * radius,
        }
    }

    fn overlaps(&self, other: &Rectangle) -> bool {
        self.x < other.x + other.width
            && other.x < self.x + self.width
            && self.y < other.y + other.height
            && other.y < self.y + self.height
    }

    fn contains(&self, other: &Rectangle) -> bool {
        self.x <= other.x
            && self.y <= other.y
            && other.x + other.width <= self.x + self.width
            && other.y + other.height <= self.y + self.height
    }
}

/// Height of a label.
pub(super) const LINE: f64 = 15.0;
/// From a point to its label.
const GAP: f64 = 9.0;
/// Half of what a point takes.
const POINT: f64 = 8.0;
/// Lines above and below in which a place is looked for.
const FARTHEST: i32 = 30;

/// A place for each label: beside its point where that is free, else farther up or down. `None`
/// where everything is taken. Labels come in the order of their importance: earlier ones get the
/// better places. Within `room`, on no point, and off the `bars` where that can be.
pub(super) fn place(
    labels: &[((f64, f64), f64)],
    points: &[(f64, f64)],
    bars: &[Rectangle],
    room: Rectangle,
) -> Vec<Option<Rectangle>> {
    let mut taken: Vec<Rectangle> = points
        .iter()
        .map(|point| Rectangle::around(*point, POINT))
        .collect();
    let mut places = Vec::with_capacity(labels.len());
    for (point, width) in labels {
        let is_free =
            |one: &Rectangle| room.contains(one) && !taken.iter().any(|other| one.overlaps(other));
        let is_clear = |one: &Rectangle| !bars.iter().any(|bar| one.overlaps(bar));
        let mut clear = candidates(*point, *width).filter(|one| is_free(one) && is_clear(one));
        let free = clear
            .next()
            .or_else(|| candidates(*point, *width).find(is_free));
        taken.extend(free);
        places.push(free);
    }
    places
}

/// Right and left on the same line, above and below, and so on outwards.
fn candidates((x, y): (f64, f64), width: f64) -> impl Iterator<Item = Rectangle> {
    let lines = (0..=FARTHEST).flat_map(|line| [-line, line]);
    lines.flat_map(move |line| {
        let top = y - LINE / 2.0 + f64::from(line) * LINE;
        let at = |x: f64| Rectangle {
            x,
            y: top,
            width,
            height: LINE,
        };
        [at(x + GAP), at(x - GAP - width), at(x - width / 2.0)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Rectangle = Rectangle {
        x: 0.0,
        y: 0.0,
        width: 800.0,
        height: 400.0,
    };

    #[test]
    fn names_of_points_in_one_place_lie_apart_and_within() {
        let point = (790.0, 3.0);
        let labels = [(point, 120.0); 12];
        let places = place(&labels, &[point], &[], ROOM);
        let places: Vec<Rectangle> = places.into_iter().flatten().collect();
        assert_eq!(places.len(), labels.len());
        for (at, one) in places.iter().enumerate() {
            assert!(ROOM.contains(one));
            assert!(!one.overlaps(&Rectangle::around(point, POINT)));
            assert!(!places[..at].iter().any(|other| one.overlaps(other)));
        }
    }

    #[test]
    fn names_lie_on_no_bar_while_there_is_room_beside_it() {
        let label = ((400.0, 200.0), 100.0);
        let bar = Rectangle {
            x: 200.0,
            y: 199.0,
            width: 400.0,
            height: 2.0,
        };
        let off = place(&[label], &[label.0], &[bar], ROOM);
        assert!(matches!(off[..], [Some(place)] if !place.overlaps(&bar)));
        let on = place(&[label], &[label.0], &[ROOM], ROOM);
        assert!(matches!(on[..], [Some(_)]));
    }

    #[test]
    fn where_there_is_no_room_there_is_no_name() {
        let labels = [((5.0, 5.0), 900.0)];
        assert_eq!(place(&labels, &[(5.0, 5.0)], &[], ROOM), [None]);
    }
}
