//! The JSON form, where serde needs to be told.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serializer;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use super::{Fault, Kept};
use crate::measure::Measure;
use crate::words::escaped;

/// The schema that a baseline says it has; all else may be of a form that is not known here.
pub(super) fn schema(json: &[u8]) -> Result<u64, Fault> {
    if json.trim_ascii().is_empty() {
        return Err(Fault::Empty);
    }
    let read: serde_json::Value =
        serde_json::from_slice(json).map_err(|error| broken(json, &error))?;
    let schema = read.get("schema").and_then(serde_json::Value::as_u64);
    schema.ok_or(Fault::NoBaseline)
}

pub(super) fn broken(json: &[u8], error: &serde_json::Error) -> Fault {
    let (line, column) = (error.line(), error.column());
    let is_conflict = json
        .split(|byte| *byte == b'\n')
        .any(|line| line.starts_with(b"<<<<<<< "));
    let reason = if error.is_syntax() && is_conflict {
        "a merge conflict that is not resolved; take one side, or remove it and `--update`"
            .to_owned()
    } else {
        let reason = error.to_string();
        let place = format!(" at line {line} column {column}");
        escaped(reason.strip_suffix(&place).unwrap_or(&reason))
    };
    Fault::Broken {
        line,
        column,
        reason,
    }
}

/// Whole numbers are written as such.
pub(super) fn values<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(|value| {
        if value.fract() == 0.0 && value.abs() < super::MOST {
            serde_json::Number::from(*value as i64).into()
        } else {
            serde_json::Value::from(*value)
        }
    }))
}

/// A measure that is there twice, as after a merge, is an error, and so is one that nobody knows.
pub(super) fn measures<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<Measure, Kept>, D::Error> {
    struct Measures;

    impl<'de> Visitor<'de> for Measures {
        type Value = BTreeMap<Measure, Kept>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("measures by name")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
            let mut measures = BTreeMap::new();
            while let Some(name) = map.next_key::<String>()? {
                let measure: Measure = name.parse().map_err(M::Error::custom)?;
                if measures.insert(measure, map.next_value()?).is_some() {
                    return Err(M::Error::custom(format!("{measure} is there twice")));
                }
            }
            Ok(measures)
        }
    }

    deserializer.deserialize_map(Measures)
}
