//! Finding models in folders.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Model;
use super::error::OpenError;
use super::gguf::PartName;
use super::join::join;
use super::open::{is_gguf, is_index, other_format, read_index, stem};
use super::shard_index::{SHARD_SUFFIXES, is_named_index};
use super::torch;

/// How many folders below the one it is given [`discover`] goes. Hugging Face's cache needs 4
/// (`hub/models--org--name/snapshots/revision/unet`).
pub const MAX_DEPTH: usize = 16;

/// Below this many bytes a `.bin` file is taken for something other than a model.
const SMALLEST_BIN: u64 = 1 << 20;

/// What was found at a path.
#[derive(Debug)]
pub struct Discovery {
    /// The models, sorted by path, and the errors of those that could not be opened.
    pub entries: Vec<Entry>,
    /// Files that look like models of formats that are not read, and PyTorch files that hold no
    /// table of tensors, sorted by path.
    pub other: Vec<OtherFile>,
}

/// A model, or why there is none.
#[derive(Debug)]
pub struct Entry {
    /// A name that no other entry of this discovery has: the stem of the file name or, where stems
    /// collide, the path from the folder that was searched. The model bears it too.
    pub name: String,
    /// The file that stands for the model; a folder, if that could not be searched.
    pub path: PathBuf,
    /// The model.
    pub model: Result<Model, OpenError>,
}

/// A file that is no model for Plimsoll, though its name says that it may be one: convert it to
/// safetensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherFile {
    /// The file.
    pub path: PathBuf,
    /// What it is, with an article: `an ONNX file`.
    pub format: &'static str,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Finds the models at `path`: the one that a file is, or all in a folder and the folders below it.
///
/// Of a sharded model the index stands for its shards, also for shards that are not mapped or not
/// sound; of a split GGUF model the first part that is there stands for all. Folders are followed
/// through symbolic links, each folder once, at most [`MAX_DEPTH`] deep; those whose name begins
/// with a dot are left out.
///
/// # Errors
/// An [`OpenError`] if `path` itself cannot be looked at. What is wrong with a single model is in
/// its entry, and so are folders that cannot be searched.
pub fn discover(path: impl AsRef<Path>) -> Result<Discovery, OpenError> {
    let root = path.as_ref();
    let meta = fs::metadata(root).map_err(|source| OpenError::io(root, "look at it", source))?;
    let mut search = Search::default();
    if meta.is_dir() {
        search.visited.insert((meta.dev(), meta.ino()));
        search.ahead.push_back((root.to_owned(), 0));
        while let Some((folder, depth)) = search.ahead.pop_front() {
            search.folder(&folder, depth);
        }
        if let [
            Entry {
                model: Err(_),
                path,
                ..
            },
        ] = &search.entries[..]
            && path == root
            && let Some(Entry {
                model: Err(error), ..
            }) = search.entries.pop()
        {
            return Err(error);
        }
    } else if let (true, Some(format)) = (meta.is_file(), other_format(root))
        && !torch::is_named(root)
    {
        search.not_a_model(root, format, &meta);
    } else {
        search.entries.push(Entry {
            name: String::new(),
            path: root.to_owned(),
            model: Model::open(root),
        });
    }
    let Search {
        mut entries,
        mut other,
        ..
    } = search;
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    other.sort_by(|a, b| a.path.cmp(&b.path));
    name(root, &mut entries);
    Ok(Discovery { entries, other })
}

#[derive(Default)]
struct Search {
    entries: Vec<Entry>,
    other: Vec<OtherFile>,
    /// Device and inode of the folders searched, or still to be.
    visited: HashSet<(u64, u64)>,
    /// The folders still to be searched, and how deep they lie. The highest first: where links lead
    /// to a folder as well, its own way is the shortest.
    ahead: VecDeque<(PathBuf, usize)>,
}

impl Search {
    fn fail(&mut self, path: &Path, error: OpenError) {
        self.entries.push(Entry {
            name: String::new(),
            path: path.to_owned(),
            model: Err(error),
        });
    }

    /// A file whose extension is not that of safetensors: a model only if it is one by its content.
    fn of_other_format(&mut self, path: &Path, format: &'static str, meta: &fs::Metadata) {
        if !torch::is_named(path) {
            // What is no file is of no format.
            if meta.is_file() {
                self.not_a_model(path, format, meta);
            }
            return;
        }
        let model = Model::open(path);
        let another = match &model {
            Err(OpenError::Torch { fault, .. }) => fault.another_kind(),
            _ => None,
        };
        match another {
            Some(kind) => self.not_a_model(path, kind, meta),
            None => self.entries.push(Entry {
                name: String::new(),
                path: path.to_owned(),
                model,
            }),
        }
    }

    fn not_a_model(&mut self, path: &Path, format: &'static str, meta: &fs::Metadata) {
        self.other.push(OtherFile {
            path: path.to_owned(),
            format,
            bytes: meta.len(),
        });
    }

    fn folder(&mut self, folder: &Path, depth: usize) {
        let listed = fs::read_dir(folder).and_then(|listing| {
            listing
                .map(|entry| entry.map(|entry| entry.path()))
                .collect()
        });
        let mut paths: Vec<PathBuf> = match listed {
            Ok(paths) => paths,
            Err(source) => return self.fail(folder, OpenError::io(folder, "list it", source)),
        };
        paths.sort();
        let mut claimed = self.indices(&paths);
        for path in &paths {
            let file_name = path.file_name().unwrap_or_default().to_string_lossy();
            if is_named_index(&file_name) && !path.is_dir() {
                continue;
            }
            let meta = match fs::metadata(path) {
                Ok(meta) => meta,
                // A link that leads nowhere matters if it stands for a model, as in a cache of
                // which parts were removed.
                Err(_) if !file_name.ends_with(".safetensors") && !is_gguf(path) => continue,
                Err(_) if claimed.contains(path) => continue,
                Err(source) => {
                    claimed.extend(parts_beside(path, &paths));
                    self.fail(path, OpenError::io(path, "look at it", source));
                    continue;
                }
            };
            if meta.is_dir() {
                self.below(path, &file_name, &meta, depth + 1);
            } else if file_name.ends_with(".safetensors") || is_gguf(path) {
                if !claimed.contains(path) {
                    let model = Model::open(path);
                    // A file may bear the name of a part and be whole.
                    if !matches!(&model, Ok(model) if model.files().len() == 1) {
                        claimed.extend(parts_beside(path, &paths));
                    }
                    self.entries.push(Entry {
                        name: String::new(),
                        path: path.clone(),
                        model,
                    });
                }
            } else if let Some(format) = other_format(path)
                && (meta.len() >= SMALLEST_BIN || !file_name.ends_with(".bin"))
                && !claimed.contains(path)
            {
                self.of_other_format(path, format, &meta);
            }
        }
    }

    fn below(&mut self, path: &Path, file_name: &str, meta: &fs::Metadata, depth: usize) {
        if file_name.starts_with('.') || !self.visited.insert((meta.dev(), meta.ino())) {
            return;
        }
        if depth > MAX_DEPTH {
            return self.fail(
                path,
                OpenError::TooDeep {
                    path: path.into(),
                    depth,
                },
            );
        }
        self.ahead.push_back((path.to_owned(), depth));
    }

    /// Opens the sharded models of one folder and gives the paths of their shards.
    fn indices(&mut self, paths: &[PathBuf]) -> HashSet<PathBuf> {
        let mut claimed = HashSet::new();
        for path in paths {
            let is_named = path
                .file_name()
                .is_some_and(|name| is_named_index(&name.to_string_lossy()) && is_index(path));
            if !is_named || path.is_dir() {
                continue;
            }
            let folder = path.parent().unwrap_or(Path::new(""));
            let model = read_index(path).and_then(|index| {
                claimed.extend(index.shards.iter().map(|shard| folder.join(&**shard)));
                join(path, index)
            });
            // Shards of a model whose index is broken are no models either.
            let prefix = format!("{}-", stem(path));
            claimed.extend(
                paths
                    .iter()
                    .filter(|path| is_shard_of(path, &prefix))
                    .cloned(),
            );
            let model = model.map(|parts| Model::from_parts(path, parts));
            self.entries.push(Entry {
                name: String::new(),
                path: path.clone(),
                model,
            });
        }
        claimed
    }
}

/// The files that are named as parts of the model that `path` is named as a part of.
fn parts_beside<'a>(path: &Path, paths: &'a [PathBuf]) -> impl Iterator<Item = PathBuf> + 'a {
    let named = |path: &Path| {
        let named = PartName::of(&path.file_name()?.to_string_lossy())?;
        Some((named.prefix, named.parts))
    };
    let model = named(path);
    let parts = paths
        .iter()
        .filter(move |path| model.is_some() && named(path) == model);
    parts.cloned()
}

/// Whether `path` is named as a shard: the prefix, then `00001-of-00002.safetensors` or `.bin`.
fn is_shard_of(path: &Path, prefix: &str) -> bool {
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    let numbers = file_name
        .strip_prefix(prefix)
        .and_then(|rest| {
            let mut suffixes = SHARD_SUFFIXES.iter();
            suffixes.find_map(|suffix| rest.strip_suffix(suffix))
        })
        .and_then(|numbers| numbers.split_once("-of-"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(number, of)| digits(number) && digits(of))
}

/// Gives every entry a name of its own: the shortest form in which no two are alike, and a number
/// behind where even whole paths are (names that are not UTF-8 can become alike).
fn name(root: &Path, entries: &mut [Entry]) {
    let relative = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_path_buf();
    let forms: [&dyn Fn(&Path) -> String; 3] = [
        &|path| stem(path),
        &|path| {
            relative(path)
                .with_file_name(stem(path))
                .to_string_lossy()
                .into_owned()
        },
        &|path| relative(path).to_string_lossy().into_owned(),
    ];
    let mut form = vec![0; entries.len()];
    for next in 1..=forms.len() {
        let mut taken: HashMap<String, usize> = HashMap::new();
        for (entry, form) in entries.iter_mut().zip(&form) {
            entry.name = forms[*form](&entry.path);
            *taken.entry(entry.name.clone()).or_default() += 1;
        }
        for (entry, form) in entries.iter().zip(&mut form) {
            if taken[&entry.name] > 1 {
                *form = next.min(forms.len() - 1);
            }
        }
    }
    let mut taken: HashSet<String> = HashSet::new();
    for entry in entries {
        let mut number = 1;
        let plain = entry.name.clone();
        while !taken.insert(entry.name.clone()) {
            number += 1;
            entry.name = format!("{plain}#{number}");
        }
        if let Ok(model) = &mut entry.model {
            model.rename(&entry.name);
        }
    }
}
