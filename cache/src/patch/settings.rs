//! Alpha, where it is said beside the matrices: in metadata, or in PEFT's configuration.
//!
//! A low-rank change is scaled by alpha / rank, or alpha / √rank where training was rank-stabilised
//! (`use_rslora`; `peft/tuners/lora/layer.py`). kohya-ss saves alpha as a tensor for each module. PEFT
//! writes it to `adapter_config.json` beside the weights, diffusers the same JSON to the key
//! `lora_adapter_metadata` (`diffusers/loaders/lora_base.py`), each key with the model's name before
//! it, and llama.cpp to `adapter.lora.alpha`, where 0 is none (`src/llama-adapter.h`).

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Component;
use super::error::Fault;
use crate::model::{Format, Model};

/// Where diffusers writes PEFT's configuration.
const OF_DIFFUSERS: &str = "lora_adapter_metadata";

/// Larger ones are none: real ones have some kilobytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// What says how strong low-rank changes are, besides tensors.
#[derive(Debug, Default)]
pub(super) struct Settings {
    said: Map<String, Value>,
}

/// What is said of one module.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Said {
    pub(super) alpha: Option<f64>,
    pub(super) is_rank_stabilised: bool,
}

impl Settings {
    /// Looks in the metadata of a patch, and in what PEFT keeps beside it.
    pub(super) fn of(model: &Model) -> Settings {
        let metadata = model.metadata();
        let json = metadata.get(OF_DIFFUSERS).map(str::to_owned);
        let json = json.or_else(|| left_out(model));
        if let Some(said) = json.and_then(|json| object(json.as_bytes())) {
            return Settings { said };
        }
        let plain: Map<String, Value> = ["lora_alpha", "use_rslora"]
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), Value::from(metadata.get(key)?))))
            .collect();
        if !plain.is_empty() {
            return Settings { said: plain };
        }
        let of_gguf = (model.format() == Format::Gguf)
            .then(|| metadata.get("adapter.lora.alpha"))
            .flatten();
        if let Some(alpha) = of_gguf {
            let is_none = alpha.parse::<f64>() == Ok(0.0);
            let said = (!is_none).then(|| ("lora_alpha".to_owned(), Value::from(alpha)));
            return Settings {
                said: said.into_iter().collect(),
            };
        }
        let said = model.files().first().and_then(|file| beside(&file.path));
        Settings {
            said: said.unwrap_or_default(),
        }
    }

    /// What is said of a module.
    ///
    /// # Errors
    /// [`Fault::SaidAlpha`], if that is no finite number.
    pub(super) fn of_module(&self, component: Component, module: &str) -> Result<Said, Fault> {
        let prefixes = prefixes(component);
        let get = |key: &str| {
            let mut keys = prefixes.iter().map(|prefix| format!("{prefix}{key}"));
            keys.find_map(|key| self.said.get(&key))
        };
        let pattern = get("alpha_pattern").and_then(Value::as_object);
        let alpha = pattern.and_then(|pattern| {
            let mut names = pattern.iter();
            names.find_map(|(name, alpha)| is_named(module, name).then_some(alpha))
        });
        let alpha = match alpha.or_else(|| get("lora_alpha")) {
            None | Some(Value::Null) => None,
            Some(value) => Some(number(value).ok_or_else(|| Fault::SaidAlpha {
                said: value.to_string().into(),
            })?),
        };
        let is_rank_stabilised = match get("use_rslora") {
            Some(Value::Bool(is)) => *is,
            Some(Value::String(is)) => is.eq_ignore_ascii_case("true"),
            _ => false,
        };
        Ok(Said {
            alpha,
            is_rank_stabilised,
        })
    }
}

/// How keys begin that speak of a component; without anything they speak of all.
fn prefixes(component: Component) -> &'static [&'static str] {
    match component {
        Component::Denoiser => &["unet.", "transformer.", ""],
        Component::TextEncoder(1) => &["text_encoder.", ""],
        Component::TextEncoder(2) => &["text_encoder_2.", ""],
        Component::TextEncoder(3) => &["text_encoder_3.", ""],
        Component::TextEncoder(_) | Component::Any => &[""],
    }
}

/// Whether a key of PEFT's patterns means a module: the end of its name, from a dot on, or all of it
/// after `^` (`get_pattern_key` in `peft/utils/other.py`). Its other expressions mean none here.
fn is_named(module: &str, key: &str) -> bool {
    if let Some(whole) = key.strip_prefix('^') {
        return module == whole;
    }
    let before = module.strip_suffix(key);
    before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_f64(),
    };
    number.filter(|number: &f64| number.is_finite())
}

/// What diffusers says at more length than [`Metadata`](crate::model::Metadata) keeps, which it does
/// where every module is listed: read from the header once more.
fn left_out(model: &Model) -> Option<String> {
    #[derive(Deserialize)]
    struct Header {
        #[serde(rename = "__metadata__")]
        metadata: Texts,
    }
    #[derive(Deserialize)]
    struct Texts {
        lora_adapter_metadata: Option<String>,
    }
    if model.metadata().left_out() == 0 || model.format() != Format::Safetensors {
        return None;
    }
    // The length of the header, in eight bytes, precedes it.
    let length = model.files().first()?.data_offset.checked_sub(8)?;
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(usize::try_from(length).ok()?)
        .ok()?;
    bytes.resize(length as usize, 0);
    let file = model.reopen_file(0).ok()?;
    file.read_exact_at(&mut bytes, 8).ok()?;
    let header: Header = serde_json::from_slice(&bytes).ok()?;
    header.metadata.lora_adapter_metadata
}

fn object(json: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(json).ok()
}

/// `adapter_config.json` in the folder of a file, if that is there and can be read.
fn beside(path: &Path) -> Option<Map<String, Value>> {
    let path = path.with_file_name("adapter_config.json");
    // What is no regular file must not hold anybody up.
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = file.open(path).ok()?;
    let about = file.metadata().ok()?;
    if !about.is_file() || about.len() > MAX_CONFIG_BYTES {
        return None;
    }
    let mut bytes = Vec::new();
    let mut file = file.take(MAX_CONFIG_BYTES);
    file.read_to_end(&mut bytes).ok()?;
    object(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: &str) -> Settings {
        Settings {
            said: object(json.as_bytes()).unwrap_or_default(),
        }
    }

    fn alpha(settings: &Settings, component: Component, module: &str) -> Option<f64> {
        settings.of_module(component, module).ok()?.alpha
    }

    #[test]
    fn alphas_of_components_and_modules_are_told_apart() {
        let said = settings(
            r#"{"unet.lora_alpha": 16, "text_encoder.lora_alpha": 8.5, "text_encoder_2.use_rslora": true,
                "unet.alpha_pattern": {"attn1.to_q": 4, "^mid.to_q": 2}}"#,
        );
        let denoiser = Component::Denoiser;
        assert_eq!(alpha(&said, denoiser, "down.attn2.to_q"), Some(16.0));
        assert_eq!(alpha(&said, denoiser, "down.attn1.to_q"), Some(4.0));
        assert_eq!(alpha(&said, denoiser, "down.xattn1.to_q"), Some(16.0));
        assert_eq!(alpha(&said, denoiser, "mid.to_q"), Some(2.0));
        assert_eq!(alpha(&said, denoiser, "x.mid.to_q"), Some(16.0));
        assert_eq!(alpha(&said, Component::TextEncoder(1), "a"), Some(8.5));
        let second = said.of_module(Component::TextEncoder(2), "a").ok();
        let expected = Said {
            alpha: None,
            is_rank_stabilised: true,
        };
        assert_eq!(second, Some(expected));
        assert_eq!(alpha(&said, Component::Any, "a"), None);
    }

    #[test]
    fn an_alpha_that_is_no_number_is_an_error() {
        for json in [
            r#"{"lora_alpha": "nan"}"#,
            r#"{"lora_alpha": "-inf"}"#,
            r#"{"lora_alpha": []}"#,
            r#"{"lora_alpha": "1e999"}"#,
        ] {
            let said = settings(json).of_module(Component::Any, "a");
            assert!(
                matches!(said, Err(Fault::SaidAlpha { .. })),
                "{json}: {said:?}"
            );
        }
    }
}
