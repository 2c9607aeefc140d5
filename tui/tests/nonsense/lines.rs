//! Events made of bytes: lines as they come from anywhere, or real ones with other things in them.

use plimsoll_events::{Event, VERSION};
use serde_json::Value;

use crate::dice::Dice;

/// A line of each kind, of real sessions.
const REAL: &str = include_str!("lines.jsonl");

/// Events of one stream, at most.
const MOST_EVENTS: usize = 256;

/// What is an event among raw lines.
pub fn raw(bytes: &[u8]) -> Vec<Event> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .take(MOST_EVENTS)
        .collect()
}

/// Events as somebody might send them: all in their place, and none of it true.
pub fn well_formed(dice: &mut Dice<'_>) -> Vec<Event> {
    let real: Vec<Value> = REAL
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let mut events = Vec::new();
    let (mut seq, mut at_us) = (0_u64, 0_u64);
    while !dice.is_empty() && events.len() < MOST_EVENTS {
        let mut line = real[dice.below(real.len())].clone();
        for _ in 0..dice.byte() % 8 {
            let at = dice.below(count(&line));
            change(&mut line, at, dice);
        }
        seq = match dice.byte() {
            0..=200 => seq.saturating_add(1),
            201..=230 => seq,
            _ => dice.number(),
        };
        at_us = match dice.byte() {
            0..=150 => at_us.saturating_add(500_000),
            151..=220 => at_us.saturating_add(dice.number() >> 16),
            _ => dice.number(),
        };
        line["v"] = VERSION.into();
        line["seq"] = seq.into();
        line["at_us"] = at_us.into();
        // A number that is none of its field makes it no event.
        events.extend(serde_json::from_value::<Event>(line).ok());
    }
    events
}

/// How many things there are in a value, with itself.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum::<usize>(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// Changes the thing at a place, counted as they are written.
fn change(value: &mut Value, mut at: usize, dice: &mut Dice<'_>) {
    if at == 0 {
        replace(value, dice);
        return;
    }
    at -= 1;
    let parts: Box<dyn Iterator<Item = &mut Value>> = match value {
        Value::Array(items) => Box::new(items.iter_mut()),
        Value::Object(fields) => Box::new(fields.values_mut()),
        _ => return,
    };
    for part in parts {
        let parts = count(part);
        if at < parts {
            return change(part, at, dice);
        }
        at -= parts;
    }
}

fn replace(value: &mut Value, dice: &mut Dice<'_>) {
    match value {
        Value::Null => *value = dice.number().into(),
        Value::Bool(is) => *is = !*is,
        Value::Number(number) if number.is_f64() => {
            let [whole, part] = [dice.number(), dice.number()];
            let sign = if dice.chance(4) { -1.0 } else { 1.0 };
            *value = (sign * whole as f64 / part.max(1) as f64).into();
        }
        Value::Number(number) => {
            *value = match dice.byte() {
                0..=199 => dice.number().into(),
                200..=229 => number.as_u64().unwrap_or(0).saturating_mul(2).into(),
                _ => (dice.number() as i64).into(),
            }
        }
        Value::String(text) => *text = dice.text(),
        Value::Array(items) => match dice.byte() % 4 {
            0 => items.clear(),
            1 => items.truncate(1),
            2 => items.reverse(),
            _ => {
                let mut more: Vec<Value> = items.iter().take(1 + dice.below(8)).cloned().collect();
                for item in &mut more {
                    let at = dice.below(count(item));
                    change(item, at, dice);
                }
                for _ in 0..dice.byte() % 32 {
                    items.extend(more.iter().take(8).cloned());
                }
            }
        },
        Value::Object(fields) => {
            let at = dice.below(fields.len());
            let name = fields.keys().nth(at).cloned();
            if let Some(name) = name {
                fields.remove(&name);
            }
        }
    }
}
