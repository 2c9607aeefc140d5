//! Good files: what is read of them, and that candle reads the same.

use std::fs::File;
use std::io::Cursor;

use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use plimsoll_cache::model::{Dtype, Format, GgufHeader, Model, TensorInfo, discover, parse_gguf};
use tempfile::tempdir;

use crate::model_files::{self, sound};
use crate::weight::weighed;
use crate::written::{F16, F32, Gguf, Q4_K, Q8_0, array_of};

/// All types that candle can write.
pub const CANDLES: [(GgmlDType, Dtype); 15] = [
    (GgmlDType::F32, Dtype::F32),
    (GgmlDType::F16, Dtype::F16),
    (GgmlDType::BF16, Dtype::BF16),
    (GgmlDType::Q4_0, Dtype::Q4_0),
    (GgmlDType::Q4_1, Dtype::Q4_1),
    (GgmlDType::Q5_0, Dtype::Q5_0),
    (GgmlDType::Q5_1, Dtype::Q5_1),
    (GgmlDType::Q8_0, Dtype::Q8_0),
    (GgmlDType::Q8_1, Dtype::Q8_1),
    (GgmlDType::Q2K, Dtype::Q2_K),
    (GgmlDType::Q3K, Dtype::Q3_K),
    (GgmlDType::Q4K, Dtype::Q4_K),
    (GgmlDType::Q5K, Dtype::Q5_K),
    (GgmlDType::Q6K, Dtype::Q6_K),
    (GgmlDType::Q8K, Dtype::Q8_K),
];

pub fn read(bytes: &[u8]) -> GgufHeader {
    parse_gguf(bytes, bytes.len() as u64).unwrap()
}

/// Whether candle has the same tensors, as far as it knows their types.
#[track_caller]
pub fn agrees(bytes: &[u8], header: &GgufHeader) {
    let is_known = |tensor: &TensorInfo| CANDLES.iter().any(|(_, known)| *known == tensor.dtype);
    let content = match Content::read(&mut Cursor::new(bytes)) {
        Ok(content) => content,
        Err(error) => {
            assert!(!header.tensors.iter().all(is_known), "{error}");
            return;
        }
    };
    assert_eq!(content.tensor_infos.len(), header.tensors.len());
    for tensor in &header.tensors {
        let theirs = &content.tensor_infos[&*tensor.name];
        assert_eq!(theirs.shape.dims(), &*tensor.shape, "{}", tensor.name);
        let known = CANDLES
            .iter()
            .find(|(known, _)| *known == theirs.ggml_dtype);
        assert_eq!(known.unwrap().1, tensor.dtype, "{}", tensor.name);
        let offset = content.tensor_data_offset + theirs.offset;
        assert_eq!(offset, tensor.offset, "{}", tensor.name);
    }
}

fn written_by_candle() -> Vec<u8> {
    let numbers = Tensor::arange(0_f32, 1024., &Device::Cpu).unwrap();
    let numbers = numbers.reshape((4, 256)).unwrap();
    let tensors: Vec<(String, QTensor)> = CANDLES
        .iter()
        .map(|(known, _)| {
            let tensor = QTensor::quantize(&numbers, *known).unwrap();
            (format!("of.{known:?}"), tensor)
        })
        .collect();
    let tensors: Vec<(&str, &QTensor)> = tensors
        .iter()
        .map(|(name, tensor)| (&**name, tensor))
        .collect();
    let metadata = [
        ("general.architecture", &Value::String("llama".to_owned())),
        ("llama.block_count", &Value::U32(32)),
    ];
    let mut file = Cursor::new(Vec::new());
    gguf_file::write(&mut file, &metadata, &tensors).unwrap();
    file.into_inner()
}

#[test]
fn what_candle_writes_is_read_as_candle_reads_it() {
    let bytes = written_by_candle();
    let header = read(&bytes);
    agrees(&bytes, &header);
    assert_eq!((header.version, header.alignment), (2, 32));
    let dtypes: Vec<Dtype> = header.tensors.iter().map(|tensor| tensor.dtype).collect();
    assert_eq!(dtypes, CANDLES.map(|(_, dtype)| dtype));
    let folder = tempdir().unwrap();
    // What a file is, its first bytes say.
    for name in [
        "small.gguf",
        "small.GGUF",
        "small.safetensors",
        "small.bin",
        "small",
    ] {
        let path = model_files::write(folder.path(), name, &bytes);
        let model = Model::open(&path).unwrap();
        assert_eq!(
            (model.format(), model.tensors()),
            (Format::Gguf, &header.tensors[..])
        );
        assert_eq!(model.files()[0].data_offset, header.data_offset);
        assert_eq!(model.metadata().get("llama.block_count"), Some("32"));
        assert_eq!(model.name(), "small");
        let sum: u64 = header.tensors.iter().map(|tensor| tensor.bytes).sum();
        assert_eq!(model.bytes(), sum);
    }
}

#[test]
fn a_safetensors_file_is_one_whatever_its_name() {
    let folder = tempdir().unwrap();
    let path = model_files::write(
        folder.path(),
        "m.gguf",
        sound(&[("t", safetensors::Dtype::F16, &[4])]),
    );
    assert_eq!(Model::open(path).unwrap().format(), Format::Safetensors);
}

#[test]
fn shapes_are_slowest_first_and_sizes_of_whole_blocks() {
    let bytes = Gguf::new()
        .tensor("a", &[64, 3, 2], Q8_0, 0)
        .tensor("b", &[256], Q4_K, 416)
        .tensor("scalar", &[], F32, 576)
        .tensor("empty", &[0, 7], F16, 608)
        .data(608)
        .bytes();
    let header = read(&bytes);
    agrees(&bytes, &header);
    let seen: Vec<(&str, &[usize], u64)> = header
        .tensors
        .iter()
        .map(|tensor| (&*tensor.name, &*tensor.shape, tensor.bytes))
        .collect();
    let wanted: [(&str, &[usize], u64); 4] = [
        ("a", &[2, 3, 64], 2 * 3 * 2 * 34),
        ("b", &[256], 144),
        ("scalar", &[], 4),
        ("empty", &[7, 0], 0),
    ];
    assert_eq!(seen, wanted);
}

#[test]
fn every_type_of_ggml_has_its_size() {
    let types: [(u32, u64, u64); 32] = [
        (0, 1, 4),
        (1, 1, 2),
        (2, 32, 18),
        (3, 32, 20),
        (6, 32, 22),
        (7, 32, 24),
        (8, 32, 34),
        (9, 32, 36),
        (10, 256, 84),
        (11, 256, 110),
        (12, 256, 144),
        (13, 256, 176),
        (14, 256, 210),
        (15, 256, 292),
        (16, 256, 66),
        (17, 256, 74),
        (18, 256, 98),
        (19, 256, 50),
        (20, 32, 18),
        (21, 256, 110),
        (22, 256, 82),
        (23, 256, 136),
        (24, 1, 1),
        (25, 1, 2),
        (26, 1, 4),
        (27, 1, 8),
        (28, 1, 8),
        (29, 256, 56),
        (30, 1, 2),
        (34, 256, 54),
        (35, 256, 66),
        (39, 32, 17),
    ];
    for (id, block, bytes) in types {
        let file = Gguf::new().tensor("t", &[2 * block, 3], id, 0).data(8192);
        let header = read(&file.bytes());
        assert_eq!(header.tensors[0].bytes, 6 * bytes, "type {id}");
    }
}

#[test]
fn tensors_in_the_same_bytes_are_tied_and_count_once() {
    let bytes = Gguf::new()
        .tensor("output", &[8, 2], F32, 64)
        .tensor("first", &[16], F32, 0)
        .tensor("embedding", &[2, 8], F32, 64)
        .tensor("again", &[16], F32, 64)
        .data(128)
        .bytes();
    let folder = tempdir().unwrap();
    let model = Model::open(model_files::write(folder.path(), "m.gguf", &bytes)).unwrap();
    let tied: Vec<_> = model
        .tensors()
        .iter()
        .map(|tensor| (&*tensor.name, tensor.tied_to))
        .collect();
    let wanted = [
        ("first", None),
        ("output", None),
        ("embedding", Some(1)),
        ("again", Some(1)),
    ];
    assert_eq!(tied, wanted);
    assert_eq!(model.bytes(), 128);
}

#[test]
fn gaps_and_bytes_behind_the_last_tensor_belong_to_none() {
    let bytes = Gguf::new()
        .tensor("a", &[8], F32, 96)
        .tensor("b", &[1], F32, 0)
        .data(1000)
        .bytes();
    agrees(&bytes, &read(&bytes));
    // And the padding of the last need not be there.
    let bytes = Gguf::new().tensor("b", &[1], F32, 0).data(4).bytes();
    agrees(&bytes, &read(&bytes));
}

#[test]
fn data_is_aligned_as_the_file_says() {
    for alignment in [1, 2, 8, 32, 64, 4096] {
        let bytes = Gguf::new()
            .aligned(alignment)
            .tensor("a", &[3], F32, 0)
            .tensor("b", &[1], F32, 12_u64.next_multiple_of(alignment.into()))
            .data(8192)
            .bytes();
        let header = read(&bytes);
        agrees(&bytes, &header);
        assert_eq!(header.alignment, u64::from(alignment));
        let offset = header.tensors[0].offset;
        assert!(offset.is_multiple_of(alignment.into()), "{alignment}");
    }
}

#[test]
fn values_are_kept_as_text_and_arrays_as_what_they_are_of() {
    let long = "x".repeat(5000);
    let words = (0..3).map(|word| Value::String(word.to_string()));
    let nested = Value::Array(vec![Value::Array(vec![Value::Bool(true)])]);
    let file = Gguf::new()
        .key("u8", &Value::U8(200))
        .key("i8", &Value::I8(-3))
        .key("u16", &Value::U16(60_000))
        .key("i16", &Value::I16(-300))
        .key("u32", &Value::U32(4_000_000_000))
        .key("i32", &Value::I32(-70_000))
        .key("u64", &Value::U64(u64::MAX))
        .key("i64", &Value::I64(i64::MIN))
        .key("f32", &Value::F32(0.1))
        .key("f64", &Value::F64(1e-9))
        .key("bool", &Value::Bool(true))
        .key("name", &Value::String("größe\n".to_owned()))
        .raw_key("zeros", 8, b"\x05\0\0\0\0\0\0\0abc\0\0")
        .raw_key("latin", 8, b"\x03\0\0\0\0\0\0\0a\xe9b")
        .key("long", &Value::String(long))
        .key("words", &Value::Array(words.collect()))
        .key("nested", &nested)
        .raw_key("none", 9, &array_of(12, 0));
    let header = read(&file.bytes());
    agrees(&file.bytes(), &header);
    let kept: Vec<(&str, &str)> = header.metadata.iter().collect();
    let wanted = [
        ("u8", "200"),
        ("i8", "-3"),
        ("u16", "60000"),
        ("i16", "-300"),
        ("u32", "4000000000"),
        ("i32", "-70000"),
        ("u64", "18446744073709551615"),
        ("i64", "-9223372036854775808"),
        ("f32", "0.1"),
        ("f64", "0.000000001"),
        ("bool", "true"),
        ("name", "größe\n"),
        ("zeros", "abc"),
        ("latin", "a\u{fffd}b"),
        ("words", "[3 strings]"),
        ("nested", "[1 arrays]"),
        ("none", "[0 f64]"),
    ];
    assert_eq!(kept, wanted);
    assert_eq!(header.metadata.left_out(), 1);
}

#[test]
fn a_file_of_a_vocabulary_alone_is_a_model_without_tensors() {
    let file = Gguf::new().key("general.architecture", &Value::String("llama".to_owned()));
    for version in [2, 3] {
        let header = file.clone().version(version).header();
        let read = read(&header);
        agrees(&header, &read);
        assert_eq!(
            (read.tensors.len(), read.data_offset),
            (0, header.len() as u64)
        );
    }
}

#[test]
fn a_long_vocabulary_is_passed_over_and_takes_no_memory() {
    let mut words = array_of(8, 300_000);
    for word in 0..300_000_u32 {
        let text = format!("word {word}");
        words.extend((text.len() as u64).to_le_bytes());
        words.extend(text.as_bytes());
    }
    let file = Gguf::one()
        .raw_key("tokenizer.ggml.tokens", 9, &words)
        .key("last", &Value::U8(1));
    let bytes = file.bytes();
    assert!(bytes.len() > 5 << 20);
    let folder = tempdir().unwrap();
    let path = model_files::write(folder.path(), "m.gguf", &bytes);
    let (model, most) = weighed(|| Model::open(&path).unwrap());
    assert!(most < 3 << 20, "{most} bytes held");
    assert_eq!(
        model.metadata().get("tokenizer.ggml.tokens"),
        Some("[300000 strings]")
    );
    assert_eq!(model.metadata().get("last"), Some("1"));
    let (read, most) = weighed(|| read(&bytes));
    assert!(most < 3 << 20, "{most} bytes held");
    assert_eq!(read.tensors, model.tensors());
}

#[test]
fn headers_of_400_gb_are_opened_in_little_memory() {
    let folder = tempdir().unwrap();
    let rows: u64 = 1 << 21;
    let (mut file, mut data) = (Gguf::new(), 0);
    for number in 0..90 {
        file = file.tensor(format!("blk.{number}.weight"), &[4096, rows], Q4_K, data);
        data += rows * 16 * 144;
    }
    let path = model_files::write(folder.path(), "large.gguf", file.bytes());
    let sparse = File::options().write(true).open(&path).unwrap();
    if sparse.set_len(file.bytes().len() as u64 + data).is_err() {
        println!("skipped: no sparse files of {data} bytes here");
        return;
    }
    let (model, most) = weighed(|| Model::open(&path).unwrap());
    assert_eq!(model.bytes(), data);
    assert!(
        data > 400 << 30 && most < 1 << 20,
        "{data} bytes, {most} held"
    );
}

#[test]
fn gguf_files_are_models_of_a_folder() {
    let folder = tempdir().unwrap();
    model_files::write(folder.path(), "b.gguf", Gguf::one().bytes());
    model_files::write(folder.path(), "sub/a.GGUF", Gguf::one().bytes());
    model_files::write(folder.path(), "bad.gguf", "x");
    std::fs::create_dir(folder.path().join("folder.gguf")).unwrap();
    std::os::unix::fs::symlink("gone", folder.path().join("lost.gguf")).unwrap();
    let found = discover(folder.path()).unwrap();
    let seen: Vec<(&str, bool)> = found
        .entries
        .iter()
        .map(|entry| (&*entry.name, entry.model.is_ok()))
        .collect();
    assert_eq!(
        seen,
        [("b", true), ("bad", false), ("lost", false), ("a", true)]
    );
    assert!(found.other.is_empty());
}
