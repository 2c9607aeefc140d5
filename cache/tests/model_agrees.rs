//! What is accepted here, the safetensors crate accepts too, with the same ranges; and what only
//! it accepts is refused for a reason that is documented.

#![allow(clippy::unwrap_used)]

use plimsoll_cache::model::{HeaderFault, header_length, parse_header, parse_index};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use safetensors::SafeTensors;

/// One entry of a table, as text and numbers that need not agree.
#[derive(Debug, Clone)]
struct Row {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    begin: i128,
    end: i128,
    extra: String,
}

impl Row {
    fn json(&self) -> String {
        let Self {
            name,
            dtype,
            shape,
            begin,
            end,
            extra,
        } = self;
        let name = serde_json::to_string(name).unwrap();
        format!(
            r#"{name}:{{"dtype":"{dtype}",{extra}"shape":{shape:?},"data_offsets":[{begin},{end}]}}"#
        )
    }
}

const DTYPES: [(&str, u64); 10] = [
    ("BOOL", 8),
    ("F4", 4),
    ("F6_E2M3", 6),
    ("F6_E3M2", 6),
    ("F8_E4M3", 8),
    ("F16", 16),
    ("BF16", 16),
    ("F32", 32),
    ("C64", 64),
    ("I64", 64),
];

/// A sound table, in which tensors of part of a byte are left out.
fn table() -> impl Strategy<Value = Vec<Row>> {
    let row = (
        select(&DTYPES[..]),
        prop::collection::vec(0_u64..5, 0..4),
        "[a-c]{0,3}",
    );
    prop::collection::vec(row, 0..6).prop_map(|rows| {
        let mut begin = 0;
        let mut table = Vec::new();
        for (number, ((dtype, bits), shape, name)) in rows.into_iter().enumerate() {
            let bits = shape.iter().product::<u64>() * bits;
            if bits % 8 == 0 {
                let end = begin + i128::from(bits / 8);
                let (name, dtype) = (format!("{name}.{number}"), dtype.to_owned());
                table.push(Row {
                    name,
                    dtype,
                    shape,
                    begin,
                    end,
                    extra: String::new(),
                });
                begin = end;
            }
        }
        table
    })
}

/// What can be done to a table.
#[derive(Debug, Clone)]
enum Harm {
    MoveBegin(Index, i128),
    MoveEnd(Index, i128),
    Dtype(Index, &'static str),
    Dimension(Index, Index, u64),
    MoreDimensions(Index, usize),
    Rename(Index, Index),
    Twice(Index),
    Swap(Index, Index),
    Extra(Index, &'static str),
}

fn harm() -> impl Strategy<Value = Harm> {
    let at = any::<Index>;
    let by = || prop_oneof![-9_i128..9, Just(i128::from(u64::MAX)), Just(1_i128 << 63)];
    let dtypes = ["F16", "U8", "F4", "F9", "", "f16", "BF16\\u0000", "F6_E2M3"];
    let extras = [
        r#""x":1e999,"#,
        r#""x":"\ud800","#,
        r#""x":-0,"#,
        r#""x":[{"shape":[]},null],"#,
        r#""shape":[1],"#,
        r#""":[[[[1.5]]]],"#,
        r#""x":{"a":1,"a":2},"#,
        r#""dtyp\u0065":"U8","#,
    ];
    prop_oneof![
        (at(), by()).prop_map(|(row, by)| Harm::MoveBegin(row, by)),
        (at(), by()).prop_map(|(row, by)| Harm::MoveEnd(row, by)),
        (at(), select(dtypes.to_vec())).prop_map(|(row, dtype)| Harm::Dtype(row, dtype)),
        (
            at(),
            at(),
            prop_oneof![0_u64..5, Just(u64::MAX), Just(1 << 32)]
        )
            .prop_map(|(row, which, to)| Harm::Dimension(row, which, to)),
        (at(), select(vec![1, 63, 64, 65, 500]))
            .prop_map(|(row, more)| Harm::MoreDimensions(row, more)),
        (at(), at()).prop_map(|(row, like)| Harm::Rename(row, like)),
        at().prop_map(Harm::Twice),
        (at(), at()).prop_map(|(row, other)| Harm::Swap(row, other)),
        (at(), select(extras.to_vec())).prop_map(|(row, extra)| Harm::Extra(row, extra)),
    ]
}

fn apply(table: &mut Vec<Row>, harm: &Harm) {
    if table.is_empty() {
        return;
    }
    match harm {
        Harm::MoveBegin(row, by) => row.get_mut(table).begin += by,
        Harm::MoveEnd(row, by) => row.get_mut(table).end += by,
        Harm::Dtype(row, dtype) => row.get_mut(table).dtype = (*dtype).to_owned(),
        Harm::Dimension(row, which, to) => {
            let shape = &mut row.get_mut(table).shape;
            if !shape.is_empty() {
                *which.get_mut(shape) = *to;
            }
        }
        Harm::MoreDimensions(row, more) => {
            let shape = &mut row.get_mut(table).shape;
            shape.extend(std::iter::repeat_n(1, *more));
        }
        Harm::Rename(row, like) => row.get_mut(table).name = like.get(table).name.clone(),
        Harm::Twice(row) => table.push(row.get(table).clone()),
        Harm::Swap(row, other) => {
            let (row, other) = (row.index(table.len()), other.index(table.len()));
            table.swap(row, other);
        }
        Harm::Extra(row, extra) => row.get_mut(table).extra = (*extra).to_owned(),
    }
}

/// What can be done to the text.
#[derive(Debug, Clone)]
enum Scratch {
    Set(Index, u8),
    Remove(Index),
    Insert(Index, String),
    Cut(Index),
    Repeat(Index, Index),
}

fn scratch() -> impl Strategy<Value = Scratch> {
    let at = any::<Index>;
    let token = select(vec![
        "{", "}", "[", "]", ",", ":", "\"", "\\", "0", "-", " ", "\n", "null", "é",
    ]);
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Scratch::Set(at, byte)),
        at().prop_map(Scratch::Remove),
        (at(), token).prop_map(|(at, token)| Scratch::Insert(at, token.to_owned())),
        at().prop_map(Scratch::Cut),
        (at(), at()).prop_map(|(from, to)| Scratch::Repeat(from, to)),
    ]
}

fn scratched(mut text: Vec<u8>, scratches: &[Scratch]) -> Vec<u8> {
    for scratch in scratches {
        if text.is_empty() {
            break;
        }
        let length = text.len();
        match scratch {
            Scratch::Set(at, byte) => text[at.index(length)] = *byte,
            Scratch::Remove(at) => drop(text.remove(at.index(length))),
            Scratch::Insert(at, token) => {
                let at = at.index(length);
                text.splice(at..at, token.bytes());
            }
            Scratch::Cut(at) => text.truncate(at.index(length)),
            Scratch::Repeat(from, to) => {
                let (from, to) = (from.index(length), to.index(length));
                let part = text[from.min(to)..from.max(to)].to_vec();
                text.splice(from..from, part);
            }
        }
    }
    text
}

/// Compares both readers over `header` before `data` bytes.
fn compare(header: &[u8], data: usize) -> Result<bool, TestCaseError> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.resize(file.len() + data, 0);
    let theirs = SafeTensors::read_metadata(&file);
    let length = header_length(&file, file.len() as u64);
    let ours = length.and_then(|length| {
        assert_eq!(length, header.len());
        parse_header(header, file.len() as u64)
    });
    match (&ours, &theirs) {
        (Ok(ours), Ok((length, theirs))) => {
            prop_assert_eq!(ours.data_offset, 8 + *length as u64);
            prop_assert_eq!(ours.tensors.len(), theirs.tensors().len());
            for tensor in &ours.tensors {
                let info = theirs.info(&tensor.name).unwrap();
                let begin = tensor.offset - ours.data_offset;
                prop_assert_eq!(tensor.dtype.to_string(), info.dtype.to_string());
                prop_assert_eq!(&tensor.shape[..], &info.shape[..]);
                let range = (begin as usize, (begin + tensor.bytes) as usize);
                prop_assert_eq!(range, info.data_offsets);
            }
            SafeTensors::deserialize(&file).unwrap();
        }
        (Ok(_), Err(error)) => {
            return Err(TestCaseError::fail(format!("accepted only here: {error}")));
        }
        (Err(fault), Ok(_)) => {
            let documented = matches!(
                fault,
                HeaderFault::DuplicateName { .. }
                    | HeaderFault::TooManyDimensions { .. }
                    | HeaderFault::NotObject { .. }
            );
            let text = String::from_utf8_lossy(header);
            prop_assert!(documented, "accepted only there: {}\n{}", fault, text);
        }
        (Err(_), Err(_)) => {}
    }
    Ok(ours.is_ok())
}

fn text_of(table: &[Row], metadata: &str) -> String {
    let rows: Vec<String> = table.iter().map(Row::json).collect();
    let rows = rows.join(",");
    match (metadata, &*rows) {
        ("", rows) => format!("{{{rows}}}"),
        (metadata, "") => format!("{{{metadata}}}"),
        (metadata, rows) => format!("{{{metadata},{rows}}}"),
    }
}

fn metadata() -> impl Strategy<Value = &'static str> {
    select(vec![
        "",
        "",
        r#""__metadata__":{"format":"pt"}"#,
        r#""__metadata__":null"#,
        r#""__metadata__":{"a":"1","a":"\u0000"}"#,
        r#""__metadata__":{"a":1}"#,
        r#""__metadata__":[]"#,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sound_headers_are_accepted_by_both(table in table(), spaces in 0_usize..9) {
        let data = table.last().map_or(0, |row| row.end as usize);
        let header = text_of(&table, "") + &" ".repeat(spaces);
        prop_assert!(compare(header.as_bytes(), data)?);
    }

    #[test]
    fn harmed_tables_are_never_accepted_here_alone(
        table in table(),
        harms in prop::collection::vec(harm(), 1..4),
        metadata in metadata(),
        more in -2_isize..3,
    ) {
        let mut table = table;
        let data = table.last().map_or(0, |row| row.end as isize);
        for harm in &harms {
            apply(&mut table, harm);
        }
        compare(text_of(&table, metadata).as_bytes(), (data + more.min(1)).max(0) as usize)?;
    }

    #[test]
    fn scratched_headers_are_never_accepted_here_alone(
        table in table(),
        scratches in prop::collection::vec(scratch(), 1..4),
        metadata in metadata(),
    ) {
        let data = table.last().map_or(0, |row| row.end as usize);
        let header = scratched(text_of(&table, metadata).into_bytes(), &scratches);
        compare(&header, data)?;
    }

    #[test]
    fn any_bytes_at_all_are_an_error_or_a_header(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        file_bytes in any::<u64>(),
    ) {
        let _ = header_length(&bytes, file_bytes);
        if let Ok(header) = parse_header(&bytes, file_bytes) {
            prop_assert!(header.tensors.iter().all(|tensor| tensor.offset + tensor.bytes <= file_bytes));
        }
        let _ = parse_index(&bytes);
    }

    #[test]
    fn a_scratched_index_is_an_error_or_names_plain_files(
        weights in prop::collection::btree_map("[a-c.]{1,4}", "[./a-b]{0,3}.safetensors", 0..6),
        scratches in prop::collection::vec(scratch(), 0..3),
    ) {
        let text = serde_json::json!({ "metadata": {}, "weight_map": &weights }).to_string();
        let bytes = scratched(text.into_bytes(), &scratches);
        match parse_index(&bytes) {
            Ok(index) => {
                for shard in &index.shards {
                    prop_assert!(!shard.contains('/') && shard.ends_with(".safetensors"));
                }
                prop_assert!(index.tensors().all(|(_, at)| (at as usize) < index.shards.len()));
                prop_assert!(index.shards.is_sorted());
                if scratches.is_empty() {
                    prop_assert_eq!(index.tensors().len(), weights.len());
                    for (name, shard) in &weights {
                        let at = index.shard(name).unwrap() as usize;
                        prop_assert_eq!(&*index.shards[at], shard);
                    }
                }
            }
            Err(fault) => prop_assert!(!fault.to_string().contains(char::is_control)),
        }
    }
}
