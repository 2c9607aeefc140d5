//! Any bytes as an index: never a panic, and no shard outside the index's folder.
//!
//! `cargo +nightly fuzz run shard_index`

#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_cache::model::parse_index;

fuzz_target!(|bytes: &[u8]| {
    match parse_index(bytes) {
        Ok(index) => {
            let known = |shard: &str| {
                [".safetensors", ".bin"]
                    .iter()
                    .any(|end| shard.ends_with(end))
            };
            let plain = |shard: &str| !shard.contains(['/', '\0']) && known(shard);
            assert!(index.shards.iter().all(|shard| plain(shard)));
            assert!(index.tensors().all(|(name, at)| {
                (at as usize) < index.shards.len() && index.shard(name) == Some(at)
            }));
        }
        Err(fault) => assert!(!fault.to_string().contains(char::is_control)),
    }
});
