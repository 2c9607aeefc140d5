//! Is this XML? What reports and pictures are judged by, in this crate and in that of the pictures.

/// An element that was opened.
#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    pub name: String,
    pub attributes: Vec<(String, String)>,
}

/// Of XML 1.0, what is used here: perhaps a declaration, one root, elements that close in order,
/// attributes once each and in double quotes, references that exist, and no character that may not
/// occur. Gives the elements in the order in which they are opened.
pub fn well_formed(xml: &str) -> Result<Vec<Element>, String> {
    let is_allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    if let Some(c) = xml.chars().find(|c| !is_allowed(*c)) {
        return Err(format!("{c:?} may not occur"));
    }
    let declaration = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
    let mut rest = xml.strip_prefix(declaration).unwrap_or(xml);
    let (mut open, mut seen): (Vec<&str>, Vec<Element>) = (Vec::new(), Vec::new());
    while let Some((before, after)) = rest.split_once('<') {
        check_text(before)?;
        if open.is_empty() && (!before.trim().is_empty() || !seen.is_empty()) {
            return Err("something beside the root".to_owned());
        }
        let (tag, after) = after.split_once('>').ok_or("a tag without an end")?;
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop() != Some(name) {
                return Err(format!("{name} closes what is not open"));
            }
            continue;
        }
        let unclosed = tag.strip_suffix('/');
        let (name, attributes) = unclosed.unwrap_or(tag).split_once(' ').unwrap_or((tag, ""));
        let name = name.trim_end_matches('/');
        seen.push(Element {
            name: name.to_owned(),
            attributes: attributes_of(attributes)?,
        });
        if unclosed.is_none() {
            open.push(name);
        }
    }
    match open.is_empty() && !seen.is_empty() && rest == "\n" {
        true => Ok(seen),
        false => Err("it ends early".to_owned()),
    }
}

fn attributes_of(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let no_value = "an attribute without a value";
        let (name, after) = rest.split_once("=\"").ok_or(no_value)?;
        let (value, after) = after.split_once('"').ok_or("a value without an end")?;
        check_text(value)?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let is_new = !found.iter().any(|(known, _)| known == name);
        if !is_new || name.is_empty() || !name.chars().all(is_name) {
            return Err(format!("attribute {name:?}"));
        }
        found.push((name.to_owned(), value.to_owned()));
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    Ok(found)
}

fn check_text(text: &str) -> Result<(), String> {
    for part in text.split('&').skip(1) {
        let (name, _) = part.split_once(';').ok_or("a bare ampersand")?;
        if !["amp", "lt", "gt", "quot", "apos", "#10"].contains(&name) {
            return Err(format!("no reference {name}"));
        }
    }
    match text.contains('>') {
        true => Err(format!("a bare > in {text:?}")),
        false => Ok(()),
    }
}

#[test]
fn the_judge_of_these_tests_knows_what_is_broken() {
    assert!(well_formed("<a b=\"&lt;\" c-d=\"\"><c/>&amp;</a>\n").is_ok());
    for broken in [
        "",
        "<a>",
        "<a></b>",
        "<a b=\"<\"/>x",
        "<a b=\"&\"/>",
        "<a b=c/>",
        "<a b=\"c\" b=\"c\"/>",
        "<a>&x;</a>",
        "<a>&</a>",
        "<a>></a>",
        "<a>\u{1}</a>",
        "<a/><a/>",
    ] {
        let broken = format!("{broken}\n");
        assert!(well_formed(&broken).is_err(), "{broken}");
    }
}
