//! Any bytes as an index: never a panic, and no shard outside the index's folder.
//!
//! `cargo +nightly fuzz run shard_index`

#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_cache::model::parse_index;

fuzz_target!(|bytes: &[u8]| {
    match parse_index(bytes) {
        Ok(index) => {
            let plain =
                |shard: &str| !shard.contains(['/', '\0']) && shard.ends_with(".safetensors");
            assert!(index.shards.iter().all(|shard| plain(shard)));
            assert!(
                index
                    .tensors
                    .values()
                    .all(|&at| (at as usize) < index.shards.len())
            );
        }
        Err(fault) => assert!(!fault.to_string().contains(char::is_control)),
    }
});
