//! Patches as trainers write them.

use std::path::Path;

use candle_core::quantized::gguf_file::Value;
use plimsoll_cache::patch::Patch;
use safetensors::Dtype;
use tempfile::TempDir;

use super::definitions::{ATTENTION, Change, Form, LAYER, LLAMA, Lora, WORDS, numbers};
use super::files::{File, KOHYA, PEFT, encode};
use super::written::{F32, Gguf};

/// A patch in the making. Its numbers are small, so that no sum of a few is beyond F16.
pub struct Making {
    name: String,
    dtype: Dtype,
    file: File,
    changes: Vec<Change>,
}

impl Making {
    pub fn new(name: &str, dtype: Dtype) -> Making {
        Making {
            name: name.to_owned(),
            dtype,
            file: File::new(),
            changes: Vec::new(),
        }
    }

    fn tensor(&mut self, key: &str, shape: &[usize]) -> Vec<f64> {
        let seed = format!("{} {key}", self.name);
        let numbers = numbers(self.dtype, &seed, shape.iter().product());
        let file = std::mem::take(&mut self.file);
        self.file = file.with(key, self.dtype, shape, &numbers);
        numbers
    }

    /// A pair for a tensor of that shape.
    pub fn pair(
        mut self,
        module: &str,
        endings: [&str; 2],
        target: &str,
        shape: &[usize],
        rank: usize,
    ) -> Making {
        let mut of_down = vec![rank];
        of_down.extend(&shape[1..]);
        let mut of_up = vec![shape[0], rank];
        of_up.resize(shape.len(), 1);
        let form = Form::LowRank {
            rank,
            alpha: None,
            down: self.tensor(&format!("{module}{}", endings[0]), &of_down),
            up: self.tensor(&format!("{module}{}", endings[1]), &of_up),
            mid: None,
        };
        self.changes.push(Change {
            target: target.to_owned(),
            form,
        });
        self
    }

    /// Tucker's form, for a convolution of that shape.
    pub fn tucker(mut self, module: &str, target: &str, shape: [usize; 4], rank: usize) -> Making {
        let [out, inputs, height, width] = shape;
        let down = self.tensor(&format!("{module}{}", KOHYA[0]), &[rank, inputs, 1, 1]);
        let up = self.tensor(&format!("{module}{}", KOHYA[1]), &[out, rank, 1, 1]);
        let core = [rank, rank, height, width];
        let mid = self.tensor(&format!("{module}.lora_mid.weight"), &core);
        self.changes.push(Change {
            target: target.to_owned(),
            form: Form::LowRank {
                rank,
                alpha: None,
                down,
                up,
                mid: Some((mid, height * width)),
            },
        });
        self
    }

    /// The alpha of the last pair, as kohya-ss writes it.
    pub fn alpha(mut self, module: &str, value: f64) -> Making {
        self.file = self
            .file
            .with(&format!("{module}.alpha"), Dtype::F32, &[], &[value]);
        self.said(value)
    }

    fn said(mut self, value: f64) -> Making {
        let last = self.changes.last_mut().map(|change| &mut change.form);
        if let Some(Form::LowRank { alpha, .. }) = last {
            *alpha = Some(value);
        }
        self
    }

    pub fn difference(mut self, key: &str, target: &str, shape: &[usize]) -> Making {
        let form = Form::Difference(self.tensor(key, shape));
        self.changes.push(Change {
            target: target.to_owned(),
            form,
        });
        self
    }

    pub fn rows(mut self, key: &str, target: &str, shape: &[usize]) -> Making {
        let form = Form::Rows(self.tensor(key, shape));
        self.changes.push(Change {
            target: target.to_owned(),
            form,
        });
        self
    }

    pub fn save(self, folder: &TempDir) -> Lora {
        Lora {
            patch: self.file.patch(folder, &self.name),
            changes: self.changes,
        }
    }
}

/// What trainers of Stable Diffusion write: one file for the UNet and the text encoder.
pub fn of_diffusion(folder: &TempDir) -> Vec<Lora> {
    let flat = ATTENTION.replace('.', "_");
    let flat_layer = LAYER.replace('.', "_");
    let to_q = format!("{ATTENTION}.attn1.to_q.weight");
    let to_k = format!("{ATTENTION}.attn2.to_k.weight");
    let fc1 = format!("{LAYER}.mlp.fc1.weight");
    let q_proj = format!("{LAYER}.self_attn.q_proj.weight");
    let conv1 = "down_blocks.0.resnets.0.conv1";
    let flat_conv1 = "lora_unet_down_blocks_0_resnets_0_conv1";
    let module = |name: &str| format!("lora_unet_{flat}_{name}");
    let encoder = |name: &str| format!("lora_te1_{flat_layer}_{name}");
    let kohya = Making::new("kohya", Dtype::F16)
        .pair(
            "lora_unet_conv_in",
            KOHYA,
            "conv_in.weight",
            &[8, 4, 3, 3],
            3,
        )
        .alpha("lora_unet_conv_in", 1.5)
        .tucker(flat_conv1, &format!("{conv1}.weight"), [8, 8, 3, 3], 2)
        .alpha(flat_conv1, 1.0)
        .pair(&module("attn1_to_q"), KOHYA, &to_q, &[8, 8], 4)
        .alpha(&module("attn1_to_q"), 2.0)
        .pair(
            &module("ff_net_0_proj"),
            KOHYA,
            &format!("{ATTENTION}.ff.net.0.proj.weight"),
            &[64, 8],
            2,
        )
        .pair(&encoder("mlp_fc1"), KOHYA, &fc1, &[32, 8], 2)
        .alpha(&encoder("mlp_fc1"), 4.0)
        .pair(&encoder("self_attn_q_proj"), KOHYA, &q_proj, &[8, 8], 1);
    let diffusers = Making::new("diffusers", Dtype::F32)
        .pair(
            &format!("unet.{ATTENTION}.attn1.to_q"),
            PEFT,
            &to_q,
            &[8, 8],
            2,
        )
        .pair(
            &format!("unet.{ATTENTION}.attn2.to_k"),
            PEFT,
            &to_k,
            &[8, 6],
            5,
        )
        .pair(
            "unet.down_blocks.0.attentions.0.proj_in",
            PEFT,
            "down_blocks.0.attentions.0.proj_in.weight",
            &[8, 8, 1, 1],
            2,
        )
        .pair(
            &format!("text_encoder.{LAYER}.self_attn.q_proj"),
            PEFT,
            &q_proj,
            &[8, 8],
            3,
        )
        .pair(
            &format!("text_encoder.{LAYER}.self_attn.out_proj"),
            PEFT,
            &format!("{LAYER}.self_attn.out_proj.weight"),
            &[8, 8],
            2,
        );
    let full = Making::new("full", Dtype::BF16)
        .difference("lora_unet_conv_in.diff", "conv_in.weight", &[8, 4, 3, 3])
        .difference("lora_unet_conv_in.diff_b", "conv_in.bias", &[8])
        .difference(&format!("{}.diff", encoder("mlp_fc1")), &fc1, &[32, 8]);
    [kohya, diffusers, full]
        .map(|making| making.save(folder))
        .into()
}

/// Words for a text encoder of that width.
pub fn of_words(folder: &TempDir) -> Vec<Lora> {
    vec![
        Making::new("toy", Dtype::F32)
            .rows("emb_params", WORDS, &[3, 8])
            .save(folder),
        Making::new("cat", Dtype::F16)
            .rows("clip_l", WORDS, &[1, 8])
            .save(folder),
    ]
}

/// An adapter of PEFT, and one of llama.cpp.
pub fn of_language(folder: &TempDir) -> Vec<Lora> {
    let peft = |name: &str| format!("base_model.model.{LLAMA}.{name}");
    let (q, v) = (
        format!("{LLAMA}.q_proj.weight"),
        format!("{LLAMA}.v_proj.weight"),
    );
    let mut written = Making::new("adapter_model", Dtype::BF16)
        .pair(&peft("q_proj"), PEFT, &q, &[8, 6], 2)
        .said(3.0)
        .pair(&peft("v_proj"), PEFT, &v, &[4, 6], 2)
        .said(3.0);
    written.file = written.file.said(
        "lora_adapter_metadata",
        r#"{"lora_alpha": 3, "use_rslora": false}"#,
    );
    vec![written.save(folder), of_llama_cpp(folder.path())]
}

fn of_llama_cpp(folder: &Path) -> Lora {
    let (down, up) = (
        numbers(Dtype::F32, "adapter a", 4 * 32),
        numbers(Dtype::F32, "adapter b", 2 * 4),
    );
    let data = [encode(Dtype::F32, &down), encode(Dtype::F32, &up)].concat();
    let file = Gguf::new()
        .key("general.type", &Value::String("adapter".to_owned()))
        .key("adapter.lora.alpha", &Value::F32(8.0))
        .tensor("blk.0.attn_q.weight.lora_a", &[32, 4], F32, 0)
        .tensor("blk.0.attn_q.weight.lora_b", &[4, 2], F32, 512)
        .data(0);
    let path = folder.join("adapter.gguf");
    std::fs::write(&path, [file.bytes(), data].concat()).unwrap();
    Lora {
        patch: Patch::open(path).unwrap(),
        changes: vec![Change {
            target: "blk.0.attn_q.weight".to_owned(),
            form: Form::LowRank {
                rank: 4,
                alpha: Some(8.0),
                down,
                up,
                mid: None,
            },
        }],
    }
}
