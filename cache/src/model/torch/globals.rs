//! The only things that a pickle may ask for: what tensors are made of.
//!
//! In Python these are imported and called. Here they are mere marks that say what the values
//! around them mean.

use super::super::dtype::Dtype;

/// Something that a pickle may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict`: a table, and the hooks of every tensor.
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`: a tensor of its storage's type.
    Tensor,
    /// `torch._utils._rebuild_tensor_v3`: a tensor that names its type (since 2.1, for the types
    /// that have no storage of their own).
    TypedTensor,
    /// `torch._utils._rebuild_parameter`: a tensor that was trained.
    Parameter,
    /// `torch.Size`.
    Size,
    /// A type of storage: its position in [`STORAGES`].
    Storage(u8),
    /// A type of elements: its position in [`DTYPES`].
    Dtype(u8),
}

/// Types of storage by name, with the type of their elements if that is read.
pub(super) const STORAGES: [(&str, Option<Dtype>); 18] = [
    ("FloatStorage", Some(Dtype::F32)),
    ("HalfStorage", Some(Dtype::F16)),
    ("BFloat16Storage", Some(Dtype::BF16)),
    ("DoubleStorage", Some(Dtype::F64)),
    ("LongStorage", Some(Dtype::I64)),
    ("IntStorage", Some(Dtype::I32)),
    ("ShortStorage", Some(Dtype::I16)),
    ("CharStorage", Some(Dtype::I8)),
    ("ByteStorage", Some(Dtype::U8)),
    ("BoolStorage", Some(Dtype::BOOL)),
    ("ComplexFloatStorage", Some(Dtype::C64)),
    ("UntypedStorage", Some(Dtype::U8)),
    ("ComplexDoubleStorage", None),
    ("QInt8Storage", None),
    ("QUInt8Storage", None),
    ("QInt32Storage", None),
    ("QUInt4x2Storage", None),
    ("QUInt2x4Storage", None),
];

/// Types of elements by name, with what they are if that is read.
pub(super) const DTYPES: [(&str, Option<Dtype>); 21] = [
    ("float32", Some(Dtype::F32)),
    ("float16", Some(Dtype::F16)),
    ("bfloat16", Some(Dtype::BF16)),
    ("float64", Some(Dtype::F64)),
    ("int64", Some(Dtype::I64)),
    ("int32", Some(Dtype::I32)),
    ("int16", Some(Dtype::I16)),
    ("int8", Some(Dtype::I8)),
    ("uint8", Some(Dtype::U8)),
    ("bool", Some(Dtype::BOOL)),
    ("complex64", Some(Dtype::C64)),
    ("uint16", Some(Dtype::U16)),
    ("uint32", Some(Dtype::U32)),
    ("uint64", Some(Dtype::U64)),
    ("float8_e4m3fn", Some(Dtype::F8_E4M3)),
    ("float8_e5m2", Some(Dtype::F8_E5M2)),
    ("float8_e4m3fnuz", Some(Dtype::F8_E4M3FNUZ)),
    ("float8_e5m2fnuz", Some(Dtype::F8_E5M2FNUZ)),
    ("float8_e8m0fnu", Some(Dtype::F8_E8M0)),
    ("complex32", None),
    ("complex128", None),
];

/// What `module` and `name` stand for, if a pickle may ask for it.
pub(super) fn allowed(module: &str, name: &str) -> Option<Global> {
    let at = |table: &[(&str, Option<Dtype>)]| {
        let position = table.iter().position(|(known, _)| *known == name);
        position.map(|position| position as u8)
    };
    Some(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2") => Global::Tensor,
        ("torch._utils", "_rebuild_tensor_v3") => Global::TypedTensor,
        ("torch._utils", "_rebuild_parameter") => Global::Parameter,
        ("torch", "Size") => Global::Size,
        ("torch", _) => match at(&STORAGES) {
            Some(position) => Global::Storage(position),
            None => Global::Dtype(at(&DTYPES)?),
        },
        // Where PyTorch 2 defines it.
        ("torch.storage", "UntypedStorage") => Global::Storage(at(&STORAGES)?),
        _ => return None,
    })
}
