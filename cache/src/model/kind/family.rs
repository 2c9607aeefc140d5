//! Families of models: what was trained once, and what was made from it since.

use std::fmt;

macro_rules! families {
    ($($(#[$meta:meta])* $variant:ident = $name:literal,)*) => {
        /// The family that a model belongs to, as far as its tensors tell.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Family {
            $($(#[$meta])* $variant,)*
            /// What the file calls itself (`general.architecture` of GGUF), where that is none of
            /// the others. Any text at all, cut to 32 characters: print it through
            /// [`escape`](crate::model::escape()), as `Display` does.
            Named(Box<str>),
        }

        impl Family {
            /// Its name, as people write it.
            #[must_use]
            pub fn name(&self) -> &str {
                match self {
                    $(Family::$variant => $name,)*
                    Family::Named(name) => name,
                }
            }
        }
    };
}

families! {
    /// Stable Diffusion of a version that its form does not tell: its VAEs are alike.
    StableDiffusion = "Stable Diffusion",
    /// Stable Diffusion 1.x: text of 768 numbers a word.
    Sd1 = "SD 1.x",
    /// Stable Diffusion 2.x: text of 1024.
    Sd2 = "SD 2.x",
    /// Stable Diffusion XL: text of 2048.
    Sdxl = "SDXL",
    /// Its refiner: text of 1280.
    SdxlRefiner = "SDXL refiner",
    /// Stable Diffusion 3 and 3.5.
    Sd3 = "SD 3",
    /// Stable Cascade.
    StableCascade = "Stable Cascade",
    /// Flux.1, dev and schnell.
    Flux = "Flux",
    /// Flux.2.
    Flux2 = "Flux 2",
    /// Chroma, made from Flux.
    Chroma = "Chroma",
    /// AuraFlow.
    AuraFlow = "AuraFlow",
    /// PixArt.
    PixArt = "PixArt",
    /// Hunyuan-DiT.
    HunyuanDit = "Hunyuan-DiT",
    /// HunyuanVideo.
    HunyuanVideo = "HunyuanVideo",
    /// Wan.
    Wan = "Wan",
    /// LTX-Video.
    LtxVideo = "LTX-Video",
    /// Mochi.
    Mochi = "Mochi",
    /// Qwen-Image.
    QwenImage = "Qwen-Image",
    /// Lumina 2.
    Lumina2 = "Lumina 2",
    /// HiDream.
    HiDream = "HiDream",
    /// Cosmos-Predict2.
    Cosmos = "Cosmos",
    /// CLIP of another size than the three below.
    Clip = "CLIP",
    /// CLIP ViT-L/14, whose text encoder is 768 wide.
    ClipL = "CLIP-L",
    /// OpenCLIP ViT-H/14: 1024.
    OpenClipH = "OpenCLIP-H",
    /// OpenCLIP ViT-bigG/14: 1280.
    OpenClipBigG = "OpenCLIP bigG",
    /// SigLIP.
    SigLip = "SigLIP",
    /// Vision Transformer.
    Vit = "ViT",
    /// DINOv2.
    DinoV2 = "DINOv2",
    /// T5, also v1.1 and mT5.
    T5 = "T5",
    /// UMT5.
    Umt5 = "UMT5",
    /// BERT.
    Bert = "BERT",
    /// RoBERTa.
    Roberta = "RoBERTa",
    /// XLM-RoBERTa.
    XlmRoberta = "XLM-RoBERTa",
    /// MPNet.
    Mpnet = "MPNet",
    /// DistilBERT.
    DistilBert = "DistilBERT",
    /// ModernBERT.
    ModernBert = "ModernBERT",
    /// Nomic's BERT.
    NomicBert = "Nomic BERT",
    /// Llama, and what has its form.
    Llama = "Llama",
    /// Llama 4.
    Llama4 = "Llama 4",
    /// Mixtral.
    Mixtral = "Mixtral",
    /// Qwen 2 and 2.5.
    Qwen2 = "Qwen 2",
    /// Their mixtures of experts.
    Qwen2Moe = "Qwen 2 MoE",
    /// Qwen 3.
    Qwen3 = "Qwen 3",
    /// Its mixtures of experts.
    Qwen3Moe = "Qwen 3 MoE",
    /// Gemma.
    Gemma = "Gemma",
    /// Gemma 2.
    Gemma2 = "Gemma 2",
    /// Gemma 3.
    Gemma3 = "Gemma 3",
    /// Phi 1.5 and 2.
    Phi2 = "Phi 2",
    /// Phi 3 and 4.
    Phi3 = "Phi 3",
    /// DeepSeek with latent attention: V2, V3, R1.
    DeepSeek2 = "DeepSeek 2",
    /// OLMo 2.
    Olmo2 = "OLMo 2",
    /// GPT-2.
    Gpt2 = "GPT-2",
    /// GPT-NeoX and Pythia.
    GptNeoX = "GPT-NeoX",
    /// GPT-J.
    GptJ = "GPT-J",
    /// StarCoder.
    StarCoder = "StarCoder",
    /// Falcon.
    Falcon = "Falcon",
    /// BLOOM.
    Bloom = "BLOOM",
    /// OPT.
    Opt = "OPT",
    /// Mamba.
    Mamba = "Mamba",
    /// Whisper.
    Whisper = "Whisper",
    /// wav2vec 2, and HuBERT, which has its form.
    Wav2Vec2 = "wav2vec 2",
    /// ESRGAN.
    Esrgan = "ESRGAN",
    /// SwinIR.
    SwinIr = "SwinIR",
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::super::escape(self.name()).fmt(f)
    }
}
