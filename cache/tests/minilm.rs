//! A real public model, under each storage, against a reference that shares no line with it:
//! `docs/minilm/reference.py`. It runs where `PLIMSOLL_MINILM` names the folder that
//! `scripts/fetch-minilm` has filled.

#![allow(clippy::unwrap_used)]

#[path = "../examples/embed/bert.rs"]
mod bert;
#[path = "../examples/embed/tokens.rs"]
mod tokens;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use bert::{Bert, similarity};
use plimsoll_cache::storage::Mapping;
use plimsoll_cache::{Budget, Cache, Model, Storage};
use serde::Deserialize;
use tokens::{Vocabulary, words};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

const STORAGES: [Storage; 3] = [Storage::Heap, Storage::Anonymous, Storage::Mapped];

#[derive(Deserialize)]
struct Reference {
    sentences: Vec<Sentence>,
    /// What becomes of each character between two letters.
    characters: BTreeMap<char, String>,
}

#[derive(Deserialize)]
struct Sentence {
    text: String,
    tokens: Vec<u32>,
    vector: Vec<f32>,
}

impl Reference {
    fn read() -> Reference {
        serde_json::from_str(include_str!("minilm/reference.json")).unwrap()
    }
}

/// The model's folder; without one, says how to get it.
fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("PLIMSOLL_MINILM").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: PLIMSOLL_MINILM names no folder that scripts/fetch-minilm has filled");
    }
    folder
}

/// Positions, from the vector that is most like this one to the least.
fn order(of: &[f32], vectors: &[&[f32]]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..vectors.len()).collect();
    order.sort_by(|one, other| {
        similarity(of, vectors[*other]).total_cmp(&similarity(of, vectors[*one]))
    });
    order
}

#[test]
fn words_are_split_and_stripped_as_the_original_does() {
    let reference = Reference::read();
    assert!(reference.characters.len() > 1500);
    for (char, wanted) in reference.characters {
        let seen = words(&format!("a{char}b")).join(" ");
        assert_eq!(seen, wanted, "U+{:04X}", u32::from(char));
    }
}

#[test]
fn vectors_are_the_references_under_every_storage() {
    let Some(folder) = folder() else { return };
    let reference = Reference::read();
    let wanted: Vec<&[f32]> = reference.sentences.iter().map(|s| &s.vector[..]).collect();
    for storage in STORAGES {
        let seen = vectors(&folder, storage, &reference.sentences);
        let seen: Vec<&[f32]> = seen.iter().map(|vector| &vector[..]).collect();
        let mut worst = 0.0_f32;
        for (index, sentence) in reference.sentences.iter().enumerate() {
            assert_eq!(seen[index].len(), wanted[index].len());
            let pairs = seen[index].iter().zip(wanted[index]);
            let difference = pairs.map(|(one, other)| (one - other).abs());
            worst = difference.fold(worst, f32::max);
            assert!(
                worst <= 1e-5 && seen[index].iter().all(|value| value.is_finite()),
                "{storage}: off by {worst:e} in {:?}",
                sentence.text
            );
            assert_eq!(
                order(seen[index], &seen),
                order(wanted[index], &wanted),
                "{storage}: {:?}",
                sentence.text
            );
        }
        println!("{storage}: the largest difference is {worst:e}");
    }
}

/// The sentences' vectors, whose tokens are checked on the way.
fn vectors(folder: &Path, storage: Storage, sentences: &[Sentence]) -> Vec<Vec<f32>> {
    // Wherever the folder lies: else another storage could serve instead.
    let mapping = Mapping {
        anywhere: true,
        ..Mapping::default()
    };
    let cache = Cache::builder()
        .ram(Budget::fixed(256 << 20))
        .storage(storage)
        .mapping(mapping)
        .build()
        .unwrap();
    let model = Model::open(folder.join("model.safetensors")).unwrap();
    let vocabulary = Vocabulary::read(&folder.join("vocab.txt")).unwrap();
    let lease = cache.lease([&model]).unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert_eq!(
        maps.contains("/model.safetensors"),
        storage == Storage::Mapped,
        "{storage}: {maps}"
    );
    let bert = Bert::new(&lease.get(&model).unwrap(), folder).unwrap();
    let embed = |sentence: &Sentence| {
        let tokens = vocabulary.tokens(&sentence.text, bert.longest());
        assert_eq!(tokens, sentence.tokens, "{:?}", sentence.text);
        bert.embed(&tokens).unwrap()
    };
    let vectors = sentences.iter().map(embed).collect();
    lease.check().unwrap();
    vectors
}

#[test]
fn the_example_prints_sentences_in_the_order_of_their_likeness() {
    let Some(folder) = folder() else { return };
    // `target/PROFILE/deps/minilm-HASH` → `target/PROFILE/examples/embed`
    let test = std::env::current_exe().unwrap();
    let example = test.ancestors().nth(2).unwrap().join("examples/embed");
    assert!(
        example.is_file(),
        "{} is not built: `cargo test` without `--test` builds it, as does `cargo build --examples`",
        example.display()
    );
    for storage in STORAGES {
        let output = Command::new(&example)
            .args(["--storage", &storage.to_string()])
            .arg(&folder)
            .args([
                "The weather is lovely today.",
                "He drove to the stadium.",
                "It's so sunny outside!",
            ])
            .output()
            .unwrap();
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{storage}: {complaints}");
        // The similarities are those that the model's authors print (https://sbert.net).
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            " 1.0000  The weather is lovely today.\n \
              0.6660  It's so sunny outside!\n \
              0.1046  He drove to the stadium.\n",
            "{storage}"
        );
    }
}
