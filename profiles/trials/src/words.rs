//! Text from outside, made safe to show, and what was probably meant by it.

/// Characters of such a text that are shown.
const LONGEST: usize = 160;

/// Whether it could move a cursor, end a line, or reorder what surrounds it.
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text in one line, with what is unsafe in it escaped, and cut where it is long.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(LONGEST));
    for (at, c) in text.chars().enumerate() {
        if at == LONGEST {
            shown.push_str("...");
            break;
        }
        if is_unsafe(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// The text between tags or quotes of XML. Version 1.0 has no form for most control characters, so
/// they are spelled out.
#[must_use]
pub fn xml(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => shown.push_str("&amp;"),
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '"' => shown.push_str("&quot;"),
            '\'' => shown.push_str("&apos;"),
            // A bare line break in an attribute is read as a space.
            '\n' => shown.push_str("&#10;"),
            c if is_unsafe(c) || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                shown.extend(c.escape_unicode());
            }
            c => shown.push(c),
        }
    }
    shown
}

/// What a wrong name should have been: the nearest, and all there are.
#[must_use]
pub fn hint<'a>(name: &str, all: impl Iterator<Item = &'a str> + Clone) -> String {
    let list: Vec<&str> = all.clone().collect();
    let list = list.join(", ");
    match nearest(name, all) {
        Some(near) => format!("did you mean `{near}`? There are: {list}"),
        None => format!("there are: {list}"),
    }
}

/// The candidate that is likely meant, if any is near enough.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Bounded, since the distance is quadratic and names come from files.
    let name: String = name.chars().take(64).collect();
    candidates
        .map(|candidate| (strsim::jaro_winkler(&name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
