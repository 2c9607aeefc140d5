//! PyTorch checkpoints are models like any other: the same tensors that `torch.save` was given.

#![allow(clippy::unwrap_used)]

mod torch_files;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use candle_core::pickle::PthTensors;
use plimsoll_cache::Model;
use plimsoll_cache::model::{Dtype, Format, TorchFault};
use tempfile::tempdir;
use torch_files::{Checkpoint, Pickler, Saved, Zip, fault_at, open, zip};

/// A file that PyTorch wrote.
fn real(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch_files");
    folder.join(name)
}

/// The bytes of a tensor, read where the model says that they are.
fn bytes(model: &Model, name: &str) -> Vec<u8> {
    let (_, tensor) = model.tensor(name).unwrap();
    let mut bytes = vec![0; tensor.bytes as usize];
    let file = model.reopen_file(tensor.file as usize).unwrap();
    file.read_exact_at(&mut bytes, tensor.offset).unwrap();
    bytes
}

fn counting(numbers: std::ops::RangeInclusive<u64>) -> Vec<u8> {
    numbers.flat_map(u64::to_le_bytes).collect()
}

#[test]
fn a_state_dict_that_pytorch_wrote_is_a_model() {
    let model = Model::open(real("test.pt")).unwrap();
    assert_eq!((model.name(), model.format()), ("test", Format::PyTorch));
    assert_eq!(model.format().name(), "pytorch");
    let [tensor] = model.tensors() else {
        panic!("{model:?}");
    };
    assert_eq!((&*tensor.name, tensor.dtype), ("test", Dtype::I64));
    assert_eq!((&*tensor.shape, tensor.bytes), (&[2, 4][..], 64));
    assert_eq!(model.files()[0].data_offset, tensor.offset);
    assert_eq!(tensor.alignment(), 64);
    assert_eq!(bytes(&model, "test"), counting(1..=8));
}

#[test]
fn a_state_dict_under_a_name_is_found() {
    let model = Model::open(real("test_with_key.pt")).unwrap();
    assert_eq!(bytes(&model, "test"), counting(1..=8));
    assert_eq!(model.metadata().left_out(), 0);
}

#[test]
fn a_tensor_in_another_order_than_its_bytes_is_refused() {
    let fault = fault_at(
        &real("fortran_tensor_3d.pth"),
        &["tensor_fortran", "[2, 3, 4]", "[1, 2, 6]", ".contiguous()"],
    );
    assert!(matches!(fault, TorchFault::NotContiguous { .. }));
}

#[test]
fn what_these_tests_write_is_what_pytorch_writes() {
    let mut checkpoint = Checkpoint::default().with("test", "LongStorage", &[2, 4]);
    checkpoint.storages[0].1 = counting(1..=8);
    assert!(checkpoint.bytes() == std::fs::read(real("test.pt")).unwrap());
}

#[test]
fn every_type_is_read_and_candle_finds_the_same() {
    let checkpoint = Checkpoint::of_every_type();
    let (_folder, model) = open(checkpoint.bytes());
    let expected = [
        ("f32", Dtype::F32),
        ("f16", Dtype::F16),
        ("bf16", Dtype::BF16),
        ("f64", Dtype::F64),
        ("i64", Dtype::I64),
        ("i32", Dtype::I32),
        ("i16", Dtype::I16),
        ("i8", Dtype::I8),
        ("u8", Dtype::U8),
        ("bool", Dtype::BOOL),
        ("c64", Dtype::C64),
    ];
    for (name, dtype) in expected {
        assert_eq!(model.tensor(name).unwrap().1.dtype, dtype);
    }
    assert_eq!(model.tensors().len(), checkpoint.tensors.len());
    for saved in &checkpoint.tensors {
        let (_, tensor) = model.tensor(&saved.name).unwrap();
        let shape: Vec<u64> = tensor.shape.iter().map(|&size| size as u64).collect();
        assert_eq!(shape, saved.shape);
        assert!(tensor.is_aligned());
        assert!(bytes(&model, &saved.name) == checkpoint.content(&saved.name));
    }
    let theirs = PthTensors::new(model.path(), None).unwrap();
    // What candle knows of these types.
    assert_eq!(theirs.tensor_infos().len(), 8);
    for name in theirs.tensor_infos().keys() {
        let (_, tensor) = model.tensor(name).unwrap();
        let same = theirs.get(name).unwrap().unwrap();
        assert_eq!(Some(same.dtype()), tensor.dtype.candle());
        assert_eq!(same.dims(), &*tensor.shape);
        let same = same.flatten_all().unwrap();
        let ours = candle_core::Tensor::from_raw_buffer(
            &bytes(&model, name),
            same.dtype(),
            same.dims(),
            &candle_core::Device::Cpu,
        );
        let values = |tensor: candle_core::Tensor| format!("{:?}", tensor.to_string());
        assert_eq!(values(same), values(ours.unwrap()), "{name}");
    }
}

#[test]
fn tensors_in_the_same_bytes_are_tied_and_views_lie_where_they_begin() {
    let checkpoint = Checkpoint::default()
        .with("embed", "FloatStorage", &[4, 6])
        .view("head", 0, &[4, 6])
        .view("row", 12, &[6])
        .with("bias", "FloatStorage", &[6])
        .view("flat", 0, &[2, 3]);
    let (_folder, model) = open(checkpoint.bytes());
    let ties = model.tensors().iter().map(|tensor| {
        let tied = tensor.tied_to.map(|at| &*model.tensors()[at as usize].name);
        (&*tensor.name, tied)
    });
    let ties: BTreeMap<&str, Option<&str>> = ties.collect();
    assert_eq!(ties["head"], Some("embed"));
    assert_eq!(ties["flat"], Some("bias"));
    assert_eq!(
        (ties["embed"], ties["row"], ties["bias"]),
        (None, None, None)
    );
    assert_eq!(model.bytes(), 96 + 24 + 24);
    for name in ties.keys() {
        assert!(bytes(&model, name) == checkpoint.content(name), "{name}");
    }
    assert!(model.tensors().is_sorted_by_key(|tensor| tensor.offset));
}

#[test]
fn beside_the_tensors_single_values_are_kept_and_the_rest_is_counted() {
    let weights = Checkpoint::default().with("w", "HalfStorage", &[2]);
    let mut pickler = Pickler::default();
    pickler.op(b"}").put("").op(b"(");
    pickler.text("epoch").int(300);
    pickler.text("loss").op(b"G").op(0.25_f64.to_be_bytes());
    pickler.text("name").text("a\nb");
    pickler.text("done").op([0x88]);
    pickler.text("nothing").op(b"N");
    pickler
        .text("params")
        .op(b"]")
        .put("")
        .op(b"(")
        .int(1)
        .int(2)
        .op(b"e");
    pickler
        .text("groups")
        .op(b"}")
        .put("")
        .int(0)
        .op(b"}")
        .op(b"s");
    pickler.int(7).int(8);
    // The attributes of a state dict: the versions of its modules.
    pickler.text("model").state_dict(&weights.tensors);
    pickler.op(b"}").text("_metadata").ordered_dict().op(b"sb");
    pickler.op(b"u");
    let (_folder, model) = open(Zip::around(&pickler.end(), &weights.storages).bytes());
    assert_eq!(bytes(&model, "w"), weights.content("w"));
    let noted: Vec<_> = model.metadata().iter().collect();
    let expected = [
        ("epoch", "300"),
        ("loss", "0.25"),
        ("name", "a\nb"),
        ("done", "true"),
    ];
    assert_eq!(noted, expected);
    assert_eq!(model.metadata().left_out(), 4);
}

#[test]
fn parameters_typed_tensors_and_later_protocols_are_read() {
    let mut typed = Saved::new("f8", "UntypedStorage", "0", &[4]);
    let parameter = Saved::new("p", "FloatStorage", "1", &[2]);
    let mut pickler = Pickler::default();
    // Protocol 4: a frame that ends where the pickle does, short texts, a memo without numbers.
    pickler.bytes.clear();
    pickler.op(b"\x80\x04\x95").op([0; 8]).op(b"}\x94(");
    pickler.op(b"\x8c\x02f8\x94\x8c\x0ctorch._utils\x94\x8c\x12_rebuild_tensor_v3\x94\x93\x94(");
    let arguments = |pickler: &mut Pickler, tensor: &Saved, module: &str| {
        let short = |text: &str| [&[0x8c, text.len() as u8], text.as_bytes()].concat();
        pickler
            .op(b"(")
            .op(short("storage"))
            .op(short(module))
            .op(short(tensor.of));
        pickler
            .op(b"\x93")
            .op(short(&tensor.key))
            .op(short("cuda:0"));
        pickler.int(tensor.count).op(b"tQ").int(tensor.first);
        pickler
            .int(tensor.shape[0])
            .op(b"\x85")
            .int(1)
            .op(b"\x85\x89");
        pickler
            .op(short("collections"))
            .op(short("OrderedDict"))
            .op(b"\x93)R");
    };
    typed.count = 4;
    arguments(&mut pickler, &typed, "torch.storage");
    pickler.op(b"\x8c\x05torch\x8c\x0dfloat8_e4m3fn\x93tR\x94");
    pickler.op(b"\x8c\x01p\x94ctorch._utils\n_rebuild_parameter\n");
    pickler.op(b"ctorch._utils\n_rebuild_tensor_v2\n(");
    arguments(&mut pickler, &parameter, "torch");
    pickler.op(b"tR\x88ccollections\nOrderedDict\n)R\x87Ru");
    let mut pickle = pickler.end();
    let frame = pickle.len() as u64 - 11;
    pickle[3..11].copy_from_slice(&frame.to_le_bytes());
    let storages = [("0".into(), vec![1, 2, 3, 4]), ("1".into(), vec![5; 8])];
    let (_folder, model) = open(Zip::around(&pickle, &storages).bytes());
    let dtype = |name: &str| model.tensor(name).unwrap().1.dtype;
    assert_eq!((dtype("f8"), dtype("p")), (Dtype::F8_E4M3, Dtype::F32));
    assert_eq!(bytes(&model, "f8"), [1, 2, 3, 4]);
    assert_eq!(bytes(&model, "p"), [5; 8]);
}

/// An entry larger than 4 GiB, and one behind it, as zip64 has them. The data is a hole.
#[test]
fn storages_beyond_four_gibibytes_are_read() {
    const LARGE: u64 = 5 << 30;
    let tensors = [("large", "0", LARGE), ("small", "1", 3)]
        .map(|(name, key, bytes)| Saved::new(name, "ByteStorage", key, &[bytes]));
    let mut pickler = Pickler::default();
    let pickle = pickler.state_dict(&tensors).op(b".").bytes.clone();
    let folder = tempdir().unwrap();
    let path = folder.path().join("large.pth");
    let file = std::fs::File::create(&path).unwrap();
    let mut directory = Vec::new();
    let mut at = 0;
    let entries = [
        ("a/data.pkl", pickle.len() as u64),
        ("a/data/0", LARGE),
        ("a/data/1", 3),
    ];
    for (name, bytes) in entries {
        let wide = |number: u64| number.min(u64::from(u32::MAX));
        let mut extra = Vec::new();
        for number in [bytes, bytes, at] {
            if number >= u64::from(u32::MAX) {
                zip::numbers(&mut extra, &[(8, number)]);
            }
        }
        let mut field = Vec::new();
        if !extra.is_empty() {
            zip::numbers(&mut field, &[(2, 1), (2, extra.len() as u64)]);
            field.extend(extra);
        }
        let mut header = Vec::new();
        zip::numbers(
            &mut header,
            &[(4, 0x0403_4b50), (2, 45), (2, 0x0808), (2, 0), (8, 0)],
        );
        zip::numbers(&mut header, &[(4, wide(bytes)), (4, wide(bytes))]);
        zip::numbers(
            &mut header,
            &[(2, name.len() as u64), (2, field.len() as u64)],
        );
        header.extend(name.bytes().chain(field.iter().copied()));
        zip::numbers(
            &mut directory,
            &[(4, 0x0201_4b50), (4, 0), (2, 0x0808), (2, 0), (8, 0)],
        );
        zip::numbers(&mut directory, &[(4, wide(bytes)), (4, wide(bytes))]);
        zip::numbers(
            &mut directory,
            &[(2, name.len() as u64), (2, field.len() as u64)],
        );
        zip::numbers(&mut directory, &[(2, 0), (8, 0), (4, wide(at))]);
        directory.extend(name.bytes().chain(field));
        file.write_all_at(&header, at).unwrap();
        let data = at + header.len() as u64;
        match name {
            "a/data.pkl" => file.write_all_at(&pickle, data).unwrap(),
            "a/data/1" => file.write_all_at(b"xyz", data).unwrap(),
            _ => {}
        }
        at = data + bytes;
    }
    let (begin, length) = (at, directory.len() as u64);
    zip::end_at(&mut directory, begin + length, 3, begin, length);
    if file.write_all_at(&directory, begin).is_err() {
        eprintln!("skipped: no files of 5 GiB with holes here");
        return;
    }
    let model = Model::open(&path).unwrap();
    assert_eq!(model.bytes(), LARGE + 3);
    assert_eq!(bytes(&model, "small"), b"xyz");
    assert!(model.tensor("small").unwrap().1.offset > LARGE);
}
