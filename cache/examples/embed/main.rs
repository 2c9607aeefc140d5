//! Sentences in the order of their likeness to the first: MiniLM, a small BERT, over weights leased
//! from the cache under the storage that is asked for.
//!
//! ```text
//! scripts/fetch-minilm target/minilm
//! cargo run --release -p plimsoll-cache --example embed -- --storage mapped target/minilm \
//!     "The weather is lovely today." "It's so sunny outside!" "He drove to the stadium."
//! ```

mod bert;
mod tokens;

use std::env::args_os;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use bert::{Bert, similarity};
use plimsoll_cache::{Budget, Cache, Model, Storage};
use tokens::Vocabulary;

/// Lets tensors be views of the cache's memory. Without it they are copies.
#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

fn main() -> ExitCode {
    let asked = match Asked::parse() {
        Ok(asked) => asked,
        Err(error) => {
            eprintln!("embed: {error}");
            eprintln!("usage: embed [--storage heap|anonymous|mapped] DIR SENTENCE…");
            return ExitCode::from(2);
        }
    };
    match embed(&asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("embed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn embed(asked: &Asked) -> Result<(), Box<dyn Error>> {
    let cache = Cache::builder()
        .ram(Budget::auto())
        .storage(asked.storage)
        .build()?;
    let model = Model::open(asked.folder.join("model.safetensors"))?; // reads the header only
    let vocabulary = Vocabulary::read(&asked.folder.join("vocab.txt"))?;

    let begin = Instant::now();
    let lease = cache.lease([&model])?; // loads or maps, and pins until it is dropped
    let millis = begin.elapsed().as_secs_f64() * 1e3;
    let (bytes, storage) = (model.bytes(), asked.storage);
    eprintln!("{bytes} bytes of weights leased in {millis:.1} ms, storage {storage}");

    let bert = Bert::new(&lease.get(&model)?, &asked.folder)?;
    let mut likenesses = Vec::new();
    let mut first = None;
    for sentence in &asked.sentences {
        let vector = bert.embed(&vocabulary.tokens(sentence, bert.longest()))?;
        let first = first.get_or_insert_with(|| vector.clone());
        likenesses.push((similarity(first, &vector), sentence));
    }
    // A mapped file can change while it is used: what was computed with it would be worth nothing.
    lease.check()?;

    likenesses.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    for (likeness, sentence) in likenesses {
        println!("{likeness:7.4}  {sentence}");
    }
    Ok(())
}

/// What the command line asks for.
struct Asked {
    storage: Storage,
    folder: PathBuf,
    sentences: Vec<String>,
}

impl Asked {
    fn parse() -> Result<Asked, String> {
        let arguments: Vec<String> = args_os()
            .skip(1)
            .map(|argument| argument.into_string())
            .collect::<Result<_, _>>()
            .map_err(|argument| format!("{argument:?} is not UTF-8"))?;
        let (storage, rest) = match &arguments[..] {
            [flag, storage, rest @ ..] if flag == "--storage" => (storage.parse()?, rest),
            rest => (Storage::default(), rest),
        };
        match rest {
            [folder, sentences @ ..] if !folder.starts_with('-') && !sentences.is_empty() => {
                Ok(Asked {
                    storage,
                    folder: folder.into(),
                    sentences: sentences.to_vec(),
                })
            }
            _ => Err("wants a folder, and sentences".to_owned()),
        }
    }
}
