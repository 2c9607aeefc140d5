//! The JSON of a header and of a shard index.
//!
//! Visitors of our own, because what derived ones do to hostile input is not good enough: a map
//! keeps the last of two equal keys, an unexpected string of 100 MB is copied whole into the error
//! message, and the tensor at fault is not named.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::dtype::Dtype;
use super::escape::escape;
use super::header::{Entry, MAX_DIMENSIONS};
use super::header_fault::HeaderFault;
use super::metadata::{LONGEST_VALUE, Metadata};

/// Reads the table of a header. Order and names are as in the text; nothing is checked but the form.
pub(super) fn read(text: &str) -> Result<(Vec<Entry>, Metadata), HeaderFault> {
    let mut trouble = Trouble::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let table = json.deserialize_map(Table(&mut trouble));
    match table.and_then(|entries| json.end().map(|()| entries)) {
        Ok(entries) => Ok(entries),
        Err(error) => Err(trouble.fault.unwrap_or_else(|| HeaderFault::Json {
            tensor: trouble.tensor,
            reason: reason(&error),
        })),
    }
}

/// What a JSON error says, safe to print. serde_json adds line and column.
pub(super) fn reason(error: &serde_json::Error) -> Box<str> {
    escape(&error.to_string()).to_string().into_boxed_str()
}

/// What was found out before the JSON reader stopped: its own error is only a text.
#[derive(Default)]
struct Trouble {
    fault: Option<HeaderFault>,
    tensor: Option<Box<str>>,
}

impl Trouble {
    fn stop<E: Error>(&mut self, fault: HeaderFault) -> E {
        self.fault = Some(fault);
        E::custom("refused")
    }
}

/// An unexpected string is an error that does not quote it: it may be 100 MB long.
macro_rules! no_string {
    () => {
        fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Self::Value, E> {
            Err(E::invalid_type(
                serde::de::Unexpected::Other("string"),
                &self,
            ))
        }
    };
}
pub(super) use no_string;

struct Table<'t>(&'t mut Trouble);

impl<'de> Visitor<'de> for Table<'_> {
    type Value = (Vec<Entry>, Metadata);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object from tensor names to tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        let mut metadata = None;
        while let Some(name) = map.next_key::<Box<str>>()? {
            if &*name == "__metadata__" {
                if metadata.is_some() {
                    return Err(A::Error::duplicate_field("__metadata__"));
                }
                let strings = map.next_value::<Option<Strings>>()?;
                metadata = Some(strings.map(|strings| strings.0).unwrap_or_default());
                continue;
            }
            let seed = Tensor {
                name: &name,
                trouble: self.0,
            };
            match map.next_value_seed(seed) {
                Ok((dtype, shape, (begin, end))) => {
                    entries.push(Entry {
                        name,
                        dtype,
                        shape,
                        begin,
                        end,
                    });
                }
                Err(error) => {
                    self.0.tensor = Some(name);
                    return Err(error);
                }
            }
        }
        Ok((entries, metadata.unwrap_or_default()))
    }
}

struct Tensor<'t> {
    name: &'t str,
    trouble: &'t mut Trouble,
}

impl<'de> DeserializeSeed<'de> for Tensor<'_> {
    type Value = (Dtype, Box<[usize]>, (u64, u64));

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Tensor<'_> {
    type Value = (Dtype, Box<[usize]>, (u64, u64));

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with dtype, shape and data_offsets")
    }

    no_string!();

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        let Self { name, trouble } = self;
        while let Some(key) = map.next_key::<Key>()? {
            let twice = match key {
                Key::Dtype => {
                    let seed = DtypeName {
                        name,
                        trouble: &mut *trouble,
                    };
                    dtype.replace(map.next_value_seed(seed)?).is_some()
                }
                Key::Shape => {
                    let seed = Shape {
                        name,
                        trouble: &mut *trouble,
                    };
                    shape.replace(map.next_value_seed(seed)?).is_some()
                }
                Key::Offsets => offsets.replace(map.next_value::<Offsets>()?.0).is_some(),
                Key::Other => {
                    map.next_value::<Skipped>()?;
                    false
                }
            };
            if twice {
                return Err(A::Error::duplicate_field(key.name()));
            }
        }
        let missing = |key: Key| A::Error::missing_field(key.name());
        Ok((
            dtype.ok_or_else(|| missing(Key::Dtype))?,
            shape.ok_or_else(|| missing(Key::Shape))?,
            offsets.ok_or_else(|| missing(Key::Offsets))?,
        ))
    }
}

#[derive(Clone, Copy)]
enum Key {
    Dtype,
    Shape,
    Offsets,
    Other,
}

impl Key {
    fn name(self) -> &'static str {
        match self {
            Self::Dtype => "dtype",
            Self::Shape => "shape",
            Self::Offsets => "data_offsets",
            Self::Other => "(other)",
        }
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Keys;
        impl Visitor<'_> for Keys {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_str<E: Error>(self, key: &str) -> Result<Key, E> {
                Ok(match key {
                    "dtype" => Key::Dtype,
                    "shape" => Key::Shape,
                    "data_offsets" => Key::Offsets,
                    _ => Key::Other,
                })
            }
        }
        json.deserialize_str(Keys)
    }
}

struct DtypeName<'t> {
    name: &'t str,
    trouble: &'t mut Trouble,
}

impl<'de> DeserializeSeed<'de> for DtypeName<'_> {
    type Value = Dtype;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Dtype, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for DtypeName<'_> {
    type Value = Dtype;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of an element type")
    }

    fn visit_str<E: Error>(self, dtype: &str) -> Result<Dtype, E> {
        Dtype::of_safetensors(dtype).ok_or_else(|| {
            self.trouble.stop(HeaderFault::UnknownDtype {
                tensor: self.name.into(),
                dtype: dtype.into(),
            })
        })
    }
}

struct Shape<'t> {
    name: &'t str,
    trouble: &'t mut Trouble,
}

impl<'de> DeserializeSeed<'de> for Shape<'_> {
    type Value = Box<[usize]>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Shape<'_> {
    type Value = Box<[usize]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of dimensions")
    }

    no_string!();

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut dimensions = [0; MAX_DIMENSIONS];
        let mut count = 0;
        while let Some(Whole(dimension)) = array.next_element()? {
            let (Some(place), Ok(dimension)) = (dimensions.get_mut(count), dimension.try_into())
            else {
                return Err(self.trouble.stop(HeaderFault::TooManyDimensions {
                    tensor: self.name.into(),
                }));
            };
            *place = dimension;
            count += 1;
        }
        Ok(dimensions[..count].into())
    }
}

struct Offsets((u64, u64));

impl<'de> Deserialize<'de> for Offsets {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Offsets;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of two offsets")
            }
            no_string!();
            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Offsets, A::Error> {
                let short = |has| A::Error::invalid_length(has, &Pair);
                let Whole(begin) = array.next_element()?.ok_or_else(|| short(0))?;
                let Whole(end) = array.next_element()?.ok_or_else(|| short(1))?;
                if array.next_element::<Whole>()?.is_some() {
                    return Err(short(3));
                }
                Ok(Offsets((begin, end)))
            }
        }
        json.deserialize_seq(Pair)
    }
}

/// A number that is neither negative nor broken.
struct Whole(u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Whole;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of at most 64 bits")
            }
            no_string!();
            fn visit_u64<E: Error>(self, number: u64) -> Result<Whole, E> {
                Ok(Whole(number))
            }
        }
        json.deserialize_u64(Number)
    }
}

/// `__metadata__`.
struct Strings(Metadata);

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Strings;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings as __metadata__")
            }
            no_string!();
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strings, A::Error> {
                let mut metadata = Metadata::default();
                while let Some((key, value)) = map.next_entry::<Kept, Kept>()? {
                    match (key.0, value.0) {
                        (Some(key), Some(value)) => metadata.note(&key, &value),
                        _ => metadata.leave_out(),
                    }
                }
                Ok(Strings(metadata))
            }
        }
        json.deserialize_map(Object)
    }
}

/// A string that is kept if it is short.
struct Kept(Option<Box<str>>);

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Kept;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, as are all values of __metadata__")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Kept, E> {
                Ok(Kept((text.len() <= LONGEST_VALUE).then(|| text.into())))
            }
        }
        json.deserialize_str(Any)
    }
}

/// A string that is read and not kept.
struct Text;

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: Error>(self, _: &str) -> Result<Text, E> {
                Ok(Text)
            }
        }
        json.deserialize_str(Any)
    }
}

/// Any value, read in full and not kept. `serde::de::IgnoredAny` would let through what no reader
/// of the value itself accepts (numbers beyond f64, halves of surrogate pairs), and has no limit on
/// its depth.
pub(super) struct Skipped;

impl<'de> Deserialize<'de> for Skipped {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Skipped;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_unit<E: Error>(self) -> Result<Skipped, E> {
                Ok(Skipped)
            }
            fn visit_bool<E: Error>(self, _: bool) -> Result<Skipped, E> {
                Ok(Skipped)
            }
            fn visit_u64<E: Error>(self, _: u64) -> Result<Skipped, E> {
                Ok(Skipped)
            }
            fn visit_i64<E: Error>(self, _: i64) -> Result<Skipped, E> {
                Ok(Skipped)
            }
            fn visit_f64<E: Error>(self, _: f64) -> Result<Skipped, E> {
                Ok(Skipped)
            }
            fn visit_str<E: Error>(self, _: &str) -> Result<Skipped, E> {
                Ok(Skipped)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Skipped, A::Error> {
                while array.next_element::<Skipped>()?.is_some() {}
                Ok(Skipped)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Skipped, A::Error> {
                while map.next_entry::<Text, Skipped>()?.is_some() {}
                Ok(Skipped)
            }
        }
        json.deserialize_any(Any)
    }
}
