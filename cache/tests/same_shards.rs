//! Two indexes over the same shards are two models where they name different tensors.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use plimsoll_cache::Model;
use safetensors::tensor::{Dtype, TensorView};
use support::{Folder, MIB, cache};

#[test]
fn indexes_that_name_other_tensors_of_the_same_shards_are_other_models() {
    let folder = Folder::new();
    let (left, right) = (vec![1_u8; 4096], vec![2_u8; 4096]);
    let tensors = [("left", &left), ("right", &right)]
        .map(|(name, data)| (name, TensorView::new(Dtype::U8, vec![4096], data).unwrap()));
    let shard = folder.path().join("shard.safetensors");
    safetensors::serialize_to_file(tensors, None, &shard).unwrap();
    let models = ["left", "right"].map(|name| {
        let path = folder.path().join(format!("{name}.safetensors.index.json"));
        let index = format!(r#"{{"weight_map": {{"{name}": "shard.safetensors"}}}}"#);
        std::fs::write(&path, index).unwrap();
        Model::open(path).unwrap()
    });
    let (cache, _) = cache(|builder| builder.ram(MIB));
    let lease = cache.lease(&models).unwrap();
    assert_eq!(lease.models().count(), 2);
    for (model, (name, value)) in models.iter().zip([("left", 1_u8), ("right", 2)]) {
        let bytes = lease.get(model).unwrap().bytes(name).unwrap();
        assert!(bytes.iter().all(|byte| *byte == value));
    }
}
