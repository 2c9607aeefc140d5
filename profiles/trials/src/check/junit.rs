//! For whatever reads test reports: the JUnit form, as Jenkins and GitLab take it.

use std::fmt::Write;

use super::cells::{change, limit, side};
use super::{Checked, RULE, Row, Verdict};
use crate::words::xml;

/// A test suite with a case a gate; a case `verdict` where the runs themselves have none. What
/// fails is a `failure`, what has no verdict an `error`.
#[must_use]
pub fn junit(checked: &Checked) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = write(&mut out, checked);
    out
}

fn write(out: &mut String, checked: &Checked) -> std::fmt::Result {
    let whole = usize::from(!checked.reasons.is_empty());
    let failures = checked.with(Verdict::Regression).count();
    let skipped = checked.with(Verdict::Skipped).count();
    let open = checked.rows.iter().filter(|row| row.verdict.is_open());
    let errors = open.count() + whole;
    let tests = checked.rows.len() + whole;
    let counts =
        format!(r#"tests="{tests}" failures="{failures}" errors="{errors}" skipped="{skipped}""#);
    let name = xml(&format!("plimsoll check: {}", checked.subject));
    writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    writeln!(
        out,
        r#"<testsuites name="plimsoll check" {counts} time="0">"#
    )?;
    writeln!(out, r#"  <testsuite name="{name}" {counts} time="0">"#)?;
    writeln!(out, "    <properties>")?;
    let runs = checked.runs.to_string();
    let headline = checked.headline();
    let properties = [
        ("profile", checked.profile.as_str()),
        ("runs", &runs),
        ("verdict", &headline),
        ("rule", RULE),
    ];
    for (name, value) in properties {
        let value = xml(value);
        writeln!(out, r#"      <property name="{name}" value="{value}"/>"#)?;
    }
    writeln!(out, "    </properties>")?;
    for row in &checked.rows {
        write_row(out, row)?;
    }
    if !checked.reasons.is_empty() {
        let message = xml(&checked.reasons.join("; "));
        writeln!(
            out,
            r#"    <testcase classname="plimsoll.check" name="verdict" time="0">"#
        )?;
        writeln!(
            out,
            r#"      <error type="no verdict" message="{message}"/>"#
        )?;
        writeln!(out, "    </testcase>")?;
    }
    if !checked.notes.is_empty() {
        let notes = xml(&checked.notes.join("\n"));
        writeln!(out, "    <system-out>{notes}</system-out>")?;
    }
    writeln!(out, "  </testsuite>\n</testsuites>")
}

fn write_row(out: &mut String, row: &Row) -> std::fmt::Result {
    let measure = row.measure;
    write!(
        out,
        r#"    <testcase classname="plimsoll.check" name="{measure}" time="0""#
    )?;
    let why = xml(&row.why);
    let kind = row.verdict.words();
    let element = match row.verdict {
        Verdict::Pass => return writeln!(out, "/>"),
        Verdict::Improved => {
            return writeln!(
                out,
                ">\n      <system-out>{why}</system-out>\n    </testcase>"
            );
        }
        Verdict::Skipped => {
            return writeln!(
                out,
                ">\n      <skipped message=\"{why}\"/>\n    </testcase>"
            );
        }
        Verdict::Regression => "failure",
        Verdict::Unclear | Verdict::TooFew | Verdict::Missing => "error",
    };
    let details = format!(
        "{}\nbaseline {}\nnow      {}\nchange   {}\ngate     {}\n",
        measure.about(),
        side(measure, row.baseline.as_ref()),
        side(measure, row.now.as_ref()),
        change(row),
        limit(measure, &row.gate)
    );
    let details = xml(&details);
    writeln!(
        out,
        ">\n      <{element} type=\"{kind}\" message=\"{why}\">{details}</{element}>\n    </testcase>"
    )
}
