//! What changes another model: LoRAs and their relatives, and embeddings of words.

use super::super::escape;
use super::super::metadata::Metadata;
use super::claims;
use super::outline::{Form, Outline};
use super::{Family, Kind, Role};

pub(super) fn detect(outline: &Outline, metadata: &Metadata) -> Option<Kind> {
    let kind = lora(outline).or_else(|| embedding(outline))?;
    let Some((family, claim)) = claims::base(metadata) else {
        return Some(kind);
    };
    Some(match &kind.family {
        Some(known) if kind.is_sure && *known != family => Kind {
            evidence: format!("{}; but {claim}", kind.evidence),
            ..kind
        },
        Some(known) if *known == family && kind.is_sure => kind,
        _ => Kind {
            family: Some(family),
            is_sure: true,
            evidence: format!("{}; {claim}", kind.evidence),
            ..kind
        },
    })
}

/// How the names of matrices end that take what the model's own matrix takes; their first dimension
/// is the rank.
const DOWN: [(&str, &str); 6] = [
    (".lora_down.weight", "kohya-ss's names"),
    (".lora_A.weight", "PEFT's names"),
    (".lora_A.default.weight", "PEFT's names"),
    ("_lora.down.weight", "diffusers' names"),
    (".lora.down.weight", "diffusers' names"),
    (".lora_a", "llama.cpp's names"),
];

/// How all others of an adapter end, LoHa's and LoKr's included.
const OTHERS: [&str; 19] = [
    ".lora_up.weight",
    ".lora_B.weight",
    ".lora_B.default.weight",
    "_lora.up.weight",
    ".lora.up.weight",
    ".lora_b",
    ".lora_mid.weight",
    ".alpha",
    ".dora_scale",
    ".lora_magnitude_vector",
    ".diff",
    ".diff_b",
    ".hada_w1_a",
    ".hada_w1_b",
    ".hada_w2_a",
    ".hada_w2_b",
    ".lokr_w1",
    ".lokr_w2",
    ".oft_blocks",
];

/// These end in `_a` or `_b` too where they are matrices of two.
const FACTORS: [&str; 2] = [".lokr_w1_", ".lokr_w2_"];

fn down(text: &str) -> Option<(&str, &'static str)> {
    let known = DOWN.iter().find_map(|(ending, whose)| {
        let module = text.strip_suffix(ending)?;
        Some((module, *whose))
    });
    known.or_else(|| Some((text.strip_suffix(".hada_w1_b")?, "LyCORIS' LoHa")))
}

fn is_other(text: &str) -> bool {
    let mut endings = OTHERS.iter();
    endings.any(|ending| text.ends_with(ending)) || FACTORS.iter().any(|part| text.contains(part))
}

/// The least and the greatest rank of an adapter's matrices.
pub(super) fn ranks(outline: &Outline) -> Option<(usize, usize)> {
    let matrices = outline.iter().filter(|(text, _)| down(text).is_some());
    let ranks = matrices.map(|(_, form)| form.rows);
    let ranks = ranks.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
    ranks.filter(|(_, most)| *most > 0)
}

fn lora(outline: &Outline) -> Option<Kind> {
    let forms = outline.iter();
    let of_adapter = forms.filter(|(text, _)| down(text).is_some() || is_other(text));
    let count: usize = of_adapter.map(|(_, form)| form.count).sum();
    // A model saved with an adapter in it is still the model; an `alpha` alone is no adapter.
    if count * 2 <= outline.tensors {
        return None;
    }
    let names = outline.iter().filter_map(|(text, _)| down(text));
    // Which of several is said must not hang on the order of a hash map.
    let whose = names.map(|(_, whose)| whose).min();
    let whose = whose.or_else(|| {
        let is_lokr = outline.iter().any(|(text, _)| text.contains(".lokr_w"));
        is_lokr.then_some("LyCORIS' LoKr")
    })?;
    let rank = ranks(outline);
    let mut evidence = whose.to_owned();
    if let Some((least, most)) = rank.filter(|(least, most)| least < most) {
        evidence += &format!(", ranks {least} to {most}");
    }
    let base = Modules::of(outline).base();
    if let Some(because) = base.because {
        evidence += &format!("; {because}");
    }
    Some(Kind {
        family: base.family,
        is_sure: base.is_sure,
        rank: rank.map(|(_, most)| most),
        ..Kind::of_no_family(Role::Lora, evidence)
    })
}

/// What an adapter is made for.
struct Base {
    family: Option<Family>,
    is_sure: bool,
    because: Option<String>,
}

impl Base {
    fn sure(family: Family, because: impl Into<String>) -> Self {
        Self {
            family: Some(family),
            is_sure: true,
            because: Some(because.into()),
        }
    }

    fn likely(self) -> Self {
        Self {
            is_sure: false,
            ..self
        }
    }

    fn untold(because: Option<&str>) -> Self {
        Self {
            family: None,
            is_sure: true,
            because: because.map(str::to_owned),
        }
    }
}

/// The matrices of an adapter, by the modules they change. The same parts lie between dots in some
/// files and between underscores in others: here all are underscores.
struct Modules<'a>(Vec<(String, &'a Form)>);

impl<'a> Modules<'a> {
    fn of(outline: &'a Outline) -> Self {
        let forms = outline.iter();
        let changed =
            forms.filter_map(|(text, form)| Some((down(text)?.0.replace('.', "_"), form)));
        Self(changed.collect())
    }

    fn with(&self, part: &str) -> impl Iterator<Item = (&str, &'a Form)> {
        let modules = self.0.iter().map(|(text, form)| (&**text, *form));
        modules.filter(move |(text, _)| text.contains(part))
    }

    fn has(&self, part: &str) -> bool {
        self.with(part).next().is_some()
    }

    fn base(&self) -> Base {
        if self.has("double_blocks_#_") || self.has("single_transformer_blocks_#_") {
            return self.of_two_streams();
        }
        if self.has("joint_blocks_#_") {
            return Base::sure(Family::Sd3, "for joint_blocks");
        }
        let joint = self.with("transformer_blocks_#_attn_add_k_proj");
        match joint.map(|(_, form)| form.first.1).max() {
            // Qwen-Image has 60 blocks, SD 3.5 large 38.
            Some(38..) => {
                let because = "for a transformer of more than 38 blocks";
                return Base::sure(Family::QwenImage, because);
            }
            Some(_) => return Base::sure(Family::Sd3, "for joint attention").likely(),
            None => {}
        }
        if self.has("blocks_#_cross_attn_k") && self.has("blocks_#_self_attn_q") {
            return Base::sure(Family::Wan, "for blocks with self_attn and cross_attn");
        }
        self.of_unet().unwrap_or_else(|| self.of_text())
    }

    /// Flux has 19 blocks that keep pictures and text apart, HunyuanVideo 20.
    fn of_two_streams(&self) -> Base {
        let doubles = self.with("blocks_#_");
        let doubles = doubles.filter(|(text, _)| !text.contains("single_"));
        let most = doubles.map(|(_, form)| form.first.1).max();
        let because = "for blocks of two streams";
        match most {
            Some(18) => Base::sure(Family::Flux, because),
            Some(19) => Base::sure(Family::HunyuanVideo, because),
            _ => Base::sure(Family::Flux, because).likely(),
        }
    }

    /// Adapters of UNets show the width of the text that the cross attention looks at.
    fn of_unet(&self) -> Option<Base> {
        let blocks = [
            "down_blocks_",
            "input_blocks_",
            "mid_block_",
            "middle_block_",
        ];
        if !blocks.iter().any(|block| self.has(block)) {
            return None;
        }
        let keys = self
            .with("attn2_")
            .filter(|(text, _)| text.ends_with("to_k"));
        let context = keys.map(|(_, form)| form.columns).max();
        let known = match context {
            Some(768) => Some(Family::Sd1),
            Some(1024) => Some(Family::Sd2),
            Some(1280) => Some(Family::SdxlRefiner),
            Some(2048) => Some(Family::Sdxl),
            _ => None,
        };
        if let (Some(family), Some(context)) = (known, context) {
            let because = format!("for cross attention to text {context} wide");
            return Some(Base::sure(family, because));
        }
        // Only XL has several transformer blocks in one attention, and none at the first level.
        let deepest = self
            .with("transformer_blocks_#_attn")
            .map(|(_, form)| form.last);
        let mut first = self
            .with("down_blocks_#_attentions_#_")
            .map(|(_, form)| form.first.0 == 0)
            .chain(
                self.with("input_blocks_#_#_transformer_blocks_")
                    .map(|(_, form)| form.first.0 < 3),
            );
        let is_deep = deepest.max() > Some(0) && !first.any(|is_first| is_first);
        if self.has("lora_te2_") || is_deep {
            let base = Base::sure(Family::Sdxl, "for a UNet of XL's depth");
            return Some(if context.is_none() {
                base
            } else {
                base.likely()
            });
        }
        Some(Base::untold(Some("for a UNet")))
    }

    /// What is left are adapters of language models and text encoders.
    fn of_text(&self) -> Base {
        if self.has("lora_te2_") {
            return Base::sure(Family::Sdxl, "for two text encoders").likely();
        }
        if self.has("text_model_encoder_layers_#_") {
            return Base::untold(Some("for a CLIP text encoder"));
        }
        if self.has("layers_#_self_attn_") || self.has("h_#_attn_c_attn") {
            return Base::untold(Some("for a language model"));
        }
        Base::untold(None)
    }
}

/// A few words that were learnt. Such files have one tensor, or one for each text encoder.
fn embedding(outline: &Outline) -> Option<Kind> {
    if outline.tensors > 4 {
        return None;
    }
    let root = outline.under("");
    let width = |name: &str| {
        let shape = &root.get(name)?.shape;
        matches!(shape.len(), 1 | 2).then(|| *shape.last().unwrap_or(&0))
    };
    if let (Some(768), Some(1280)) = (width("clip_l"), width("clip_g")) {
        let evidence = "vectors 768 and 1280 wide, for two text encoders";
        return Some(Kind::new(Role::Embedding, Family::Sdxl, evidence));
    }
    let mut forms = outline.iter();
    let (text, form) = forms.next()?;
    let is_named = text == "emb_params"
        || text.starts_with("string_to_param.")
        || (text.starts_with('<') && text.ends_with('>'));
    if forms.next().is_some() || !is_named || !matches!(form.shape.len(), 1 | 2) {
        return None;
    }
    let width = *form.shape.last()?;
    let evidence = format!("{} is {width} wide", escape(text));
    Some(match width {
        768 => Kind::new(Role::Embedding, Family::Sd1, evidence),
        1024 => Kind::new(Role::Embedding, Family::Sd2, evidence),
        _ => Kind::of_no_family(Role::Embedding, evidence),
    })
}
