//! Pickles that are broken, or made to harm, are refused quickly, in little memory, with an
//! error that names the file, the numbers and a way out.

#![allow(clippy::unwrap_used)]

mod torch_files;

use plimsoll_cache::model::TorchFault;
use torch_files::{Pickler, Saved, Zip, fault};

/// The fault of a checkpoint of one storage, `0` of 24 bytes, with this pickle.
#[track_caller]
fn of_pickle(pickle: &[u8], words: &[&str]) -> TorchFault {
    let storages = [("0".to_owned(), vec![7; 24])];
    fault(Zip::around(pickle, &storages).bytes(), words)
}

/// A pickle that makes what these instructions make, under a name in a table.
fn pickled(instructions: &[u8]) -> Vec<u8> {
    let mut pickler = Pickler::default();
    pickler.op(b"}").put("").text("x").op(instructions).op(b"s");
    pickler.end()
}

/// One tensor, changed.
fn changed(change: impl FnOnce(&mut Saved)) -> Vec<u8> {
    let mut tensor = Saved::new("t", "FloatStorage", "0", &[2, 3]);
    change(&mut tensor);
    let mut pickler = Pickler::default();
    pickler.state_dict(&[tensor]);
    pickler.end()
}

#[test]
fn code_is_refused_by_its_name_however_it_is_asked_for() {
    let ways: [(&[u8], &str); 9] = [
        (b"cposix\nsystem\nX\x02\0\0\0id\x85R", "posix.system"),
        (b"cos\nsystem\n", "os.system"),
        (b"cbuiltins\neval\n(X\x01\0\0\x001tR", "builtins.eval"),
        (b"c__builtin__\nexec\n", "__builtin__.exec"),
        (b"\x8c\x02os\x8c\x06system\x93", "os.system"),
        (b"\x8c\x02osq\x020h\x02\x8c\x06system\x93", "os.system"),
        (b"(ios\nsystem\n", "os.system"),
        (b"ctorch\nload\n", "torch.load"),
        (
            b"ctorch._utils\n_import_dotted_name\n",
            "torch._utils._import_dotted_name",
        ),
    ];
    for (instructions, name) in ways {
        let fault = of_pickle(
            &pickled(instructions),
            &[&format!("`{name}`"), "could run code"],
        );
        assert!(matches!(fault, TorchFault::Global { .. }), "{fault:?}");
    }
}

#[test]
fn code_behind_good_tensors_or_within_them_is_refused() {
    let tensor = Saved::new("t", "FloatStorage", "0", &[2, 3]);
    let mut behind = Pickler::default();
    behind
        .state_dict(&[tensor])
        .op(b"cos\nsystem\nX\x02\0\0\0id\x85R0");
    of_pickle(&behind.end(), &["`os.system`"]);
    // A call whose result would be the arguments of a tensor.
    let nested = b"ctorch._utils\n_rebuild_tensor_v2\ncbuiltins\ngetattr\n)RR";
    of_pickle(&pickled(nested), &["`builtins.getattr`"]);
    // What is allowed may only be called with what it is called with for tensors.
    let calls: [&[u8]; 7] = [
        b"ccollections\nOrderedDict\nX\x01\0\0\0x\x85R",
        b"ctorch\nFloatStorage\nK\x01\x85R",
        b"ctorch\nfloat32\n)R",
        b"ctorch._utils\n_rebuild_tensor_v2\n)R",
        b"ctorch._utils\n_rebuild_parameter\n(K\x01K\x02K\x03tR",
        b"X\x01\0\0\0x)R",
        b"ccollections\nOrderedDict\nctorch\nSize\n)RR",
    ];
    for call in calls {
        let fault = of_pickle(&pickled(call), &["no tensors", "at byte"]);
        assert!(matches!(fault, TorchFault::Malformed { .. }), "{fault:?}");
    }
}

#[test]
fn names_that_repaint_a_screen_are_escaped() {
    of_pickle(
        &pickled(b"c\x1b[2J\nsys\rtem\xff\n"),
        &[r"\u{1b}[2J", r"sys\rtem"],
    );
    let long = format!("c{}\nx\n", "m".repeat(1 << 20));
    let fault = of_pickle(&pickled(long.as_bytes()), &["mmm"]);
    assert!(fault.to_string().len() < 1000);
}

#[test]
fn instructions_that_are_not_written_for_tensors_are_refused() {
    let instructions: [&[u8]; 9] = [
        b"P0\n",
        b"I1\n",
        b"Vx\n",
        b")\x81",
        b")}\x92",
        b"\x82\x01",
        b"(o",
        b"\x97",
        b"\xff",
    ];
    for instruction in instructions {
        let fault = of_pickle(&pickled(instruction), &["instruction 0x", "at byte"]);
        assert!(matches!(fault, TorchFault::Opcode { .. }), "{fault:?}");
    }
    let fault = of_pickle(b"\x80\x06}.", &["protocol 6", "up to 5"]);
    assert_eq!(fault, TorchFault::Protocol { protocol: 6 });
}

#[test]
fn lengths_of_exabytes_and_gibibytes_are_refused_without_memory_for_them() {
    let huge = (1_u64 << 60).to_le_bytes();
    let mut lengths: Vec<Vec<u8>> = Vec::new();
    for opcode in [0x8d, 0x8e, 0x96] {
        lengths.push([&[opcode][..], &huge].concat());
        lengths.push([&[opcode][..], &[0xff; 8]].concat());
    }
    for opcode in [b'X', b'B', 0x8b] {
        lengths.push([&[opcode][..], &[0xff; 4]].concat());
    }
    for instruction in lengths {
        let fault = of_pickle(&pickled(&instruction), &["at byte", "damaged"]);
        assert!(matches!(fault, TorchFault::Cut { .. }), "{fault:?}");
    }
    let frame = [&b"\x80\x04\x95"[..], &huge, b"}."].concat();
    of_pickle(&frame, &["a frame", "at byte 2"]);
}

#[test]
fn every_pickle_that_is_cut_off_is_refused() {
    let whole = changed(|_| {});
    for length in 0..whole.len() {
        let fault = of_pickle(&whole[..length], &[]);
        assert!(
            matches!(fault, TorchFault::Cut { .. }),
            "{length}: {fault:?}"
        );
    }
    of_pickle(&[&whole[..], b"."].concat(), &["bytes after the end"]);
}

#[test]
fn stacks_that_do_not_fit_are_refused() {
    let pickles: [&[u8]; 15] = [
        b".",
        b"}}.",
        b"(.",
        b"0.",
        b"1.",
        b"R.",
        b"Q.",
        b"s.",
        b"}(K\x01u.",
        b"K\x01K\x02K\x03s.",
        b"K\x01b.",
        b"}K\x01a.",
        b"h\x00.",
        b"}q\x05.",
        b"}(K\x01\x86.",
    ];
    for pickle in pickles {
        let fault = of_pickle(pickle, &["at byte", "save it again"]);
        assert!(
            matches!(fault, TorchFault::Malformed { .. }),
            "{pickle:?}: {fault:?}"
        );
    }
}

#[test]
fn tensors_that_claim_what_their_storage_has_not_are_refused() {
    let claims: [(&str, Vec<u8>); 11] = [
        ("7 × 4", changed(|tensor| tensor.count = 7)),
        ("× 4", changed(|tensor| tensor.count = u64::MAX >> 1)),
        ("24", changed(|tensor| tensor.first = 1)),
        ("24", changed(|tensor| tensor.first = u64::MAX >> 1)),
        (
            "[2, 4]",
            changed(|tensor| (tensor.shape[1], tensor.stride[0]) = (4, 4)),
        ),
        (
            "damaged",
            changed(|tensor| tensor.shape = vec![1 << 62, 1 << 62]),
        ),
        ("[1, 2]", changed(|tensor| tensor.stride = vec![1, 2])),
        ("[0, 0]", changed(|tensor| tensor.stride = vec![0, 0])),
        ("[3]", changed(|tensor| tensor.stride = vec![3])),
        ("`test/data/9`", changed(|tensor| tensor.key = "9".into())),
        (
            "`test/data/../version`",
            changed(|tensor| tensor.key = "../version".into()),
        ),
    ];
    for (word, pickle) in claims {
        of_pickle(&pickle, &["`t`", word]);
    }
    // Numbers that Python has and a shape cannot have.
    of_pickle(
        &changed(|tensor| tensor.shape = vec![u64::MAX, 1]),
        &["`t`", "from 0 on"],
    );
    of_pickle(
        &changed(|tensor| tensor.first = u64::MAX),
        &["odd arguments"],
    );
    of_pickle(
        &changed(|tensor| tensor.shape = vec![1; 65]),
        &["odd arguments"],
    );
    let fault = of_pickle(
        &changed(|tensor| tensor.of = "QInt8Storage"),
        &["`t`", "torch.QInt8"],
    );
    assert!(matches!(fault, TorchFault::StorageType { .. }));
    let none = of_pickle(b"\x80\x02}.", &["0 named values"]);
    assert_eq!(none, TorchFault::NoTensors { entries: 0 });
}

#[test]
fn a_name_twice_is_refused() {
    let tensor = Saved::new("t", "FloatStorage", "0", &[2, 3]);
    let mut pickler = Pickler::default();
    pickler.state_dict(&[tensor.clone(), tensor]);
    let fault = of_pickle(&pickler.end(), &["`t` twice"]);
    assert!(matches!(fault, TorchFault::DuplicateName { .. }));
}
